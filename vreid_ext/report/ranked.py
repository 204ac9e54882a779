"""Ranked lists for display. Unlike in the evaluation, junk is kept and marked."""

from typing import Literal, NamedTuple

from vreid_ext import metrics
from vreid_ext.data import Tracklet
from vreid_ext.engine.comparison import ids, metric_of, rerank_options
from vreid_ext.engine.evaluate import Evaluated


class Listed(NamedTuple):
    """One item of a ranked list.

    Attributes:
        gallery: index of the gallery tracklet.
        distance: distance to the query in the metric of the recipe.
        kind: "hit", the same person as the query; "miss", another person; "junk", the same person in the
            same camera or otherwise ignored (`TrackletDataset.ignores`), so it has no rank.
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
    # `top` must be larger by the number of junk items.
    of_person: dict[int, list[Tracklet]] = {}
    for item in data.gallery:
        of_person.setdefault(item.pid, []).append(item)
    most_junk = max(
        sum(data.ignores(query, item) for item in of_person.get(query.pid, [])) for query in data.query
    )
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
            if data.ignores(query, item):
                kind = "junk"
            counted += kind != "junk"
            listed.append(Listed(index, distance, kind))
        lists.append(listed)
    return lists
