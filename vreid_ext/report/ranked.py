"""Ranked lists for the eye: what the figures leave out is listed too, in its place and as junk."""

from collections import Counter
from typing import Literal, NamedTuple

from vreid_ext import metrics
from vreid_ext.engine.comparison import ids, metric_of, rerank_options
from vreid_ext.engine.evaluate import Evaluated


class Listed(NamedTuple):
    """One place of a ranked list.

    Attributes:
        gallery: index of the gallery tracklet.
        distance: in the recipe's metric.
        kind: "hit", the query's person; "miss", another; "junk", the query's person from the query's own
            camera, which the protocol leaves out and no rank counts.
    """

    gallery: int
    distance: float
    kind: Literal["hit", "miss", "junk"]


def ranked_lists(evaluated: Evaluated, ranks: int) -> list[list[Listed]]:
    """The first `ranks` counted places of every query, with the junk between them.

    The query itself and gallery items of pid -1 are in no list.

    Raises:
        ValueError: ranks below 1.
    """
    if ranks < 1:
        raise ValueError(f"ranks: expected at least 1, got {ranks}")
    data = evaluated.dataset
    beside = Counter((item.pid, item.camid) for item in data.gallery) if data.junk else Counter()
    most_junk = max(beside[query.pid, query.camid] for query in data.query)
    indices, distances = metrics.rank(
        evaluated.query, evaluated.gallery, *ids(data), top=min(ranks + most_junk, len(data.gallery)),
        metric=metric_of(evaluated.model, evaluated.recipe), junk=False, exclude=evaluated.itself,
        rerank=rerank_options(evaluated.recipe) or False,
    )  # fmt: skip
    lists = []
    for query, places, away in zip(data.query, indices.tolist(), distances.tolist(), strict=True):
        listed: list[Listed] = []
        counted = 0
        for index, distance in zip(places, away, strict=True):
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
