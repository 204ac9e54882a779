"""Ranked lists for display. Unlike in the evaluation, junk is kept and marked."""

from collections import Counter
from typing import Literal, NamedTuple

from vreid_ext import metrics
from vreid_ext.engine.comparison import ids, metric_of, rerank_options
from vreid_ext.engine.evaluate import Evaluated


class Listed(NamedTuple):
    """One item of a ranked list.

    Attributes:
        gallery: index of the gallery tracklet.
        distance: distance to the query in the metric of the recipe.
        kind: "hit", the same person as the query; "miss", another person; "junk", the same person in the
            same camera. The protocol ignores junk, so it has no rank.
    """

    gallery: int
    distance: float
    kind: Literal["hit", "miss", "junk"]


def ranked_lists(evaluated: Evaluated, ranks: int) -> list[list[Listed]]:
    """The nearest gallery items of every query: the first `ranks` hits and misses, and the junk between them.

    The query itself and gallery items with pid -1 are excluded.

    Raises:
        ValueError: ranks is below 1.
    """
    if ranks < 1:
        raise ValueError(f"ranks: expected at least 1, got {ranks}")
    data = evaluated.dataset
    # Gallery items by person and camera. Those with the person and camera of a query are junk, so `top` must
    # be larger by the number of junk items.
    junk = Counter((item.pid, item.camid) for item in data.gallery) if data.junk else Counter()
    most_junk = max(junk[query.pid, query.camid] for query in data.query)
    indices, distances = metrics.rank(
        evaluated.query, evaluated.gallery, *ids(data), top=min(ranks + most_junk, len(data.gallery)),
        metric=metric_of(evaluated.model, evaluated.recipe), junk=False, exclude=evaluated.itself,
        rerank=rerank_options(evaluated.recipe) or False,
    )  # fmt: skip
    lists = []
    for query, nearest, row in zip(data.query, indices.tolist(), distances.tolist(), strict=True):
        listed: list[Listed] = []
        counted = 0
        for index, distance in zip(nearest, row, strict=True):
            if index < 0 or counted == ranks:
                break
            item = data.gallery[index]
            kind: Literal["hit", "miss", "junk"] = "hit" if item.pid == query.pid else "miss"
            if data.junk and kind == "hit" and item.camid == query.camid:
                kind = "junk"
            counted += kind != "junk"
            listed.append(Listed(index, distance, kind))
        lists.append(listed)
    return lists
