"""Comparison of query and gallery features in an evaluation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext import metrics
from vreid_ext.data import Tracklet, TrackletDataset
from vreid_ext.distributed import world
from vreid_ext.engine.recipe import Recipe
from vreid_ext.features.rows import DistanceFunction
from vreid_ext.features.stored import StoredRows
from vreid_ext.metrics.protocol import Protocol


class Comparison:
    """The distinct tracklets of query and gallery of a data set, and their evaluation.

    Attributes:
        dataset: the data set.
        tracklets: all tracklets of query and gallery without duplicates, so that a query that is also in the
            gallery is processed once.
        query, gallery: lists of indices into `tracklets`, one for each query and gallery item.
        itself: (Q,) index of the gallery item that is the same tracklet as the query, -1 if there is none. It
            does not count as a match.
    """

    def __init__(self, dataset: TrackletDataset) -> None:
        self.dataset = dataset
        query, gallery = dataset.query, dataset.gallery
        self.tracklets = list({tracklet.paths: tracklet for tracklet in (*query, *gallery)}.values())
        index_of = {tracklet.paths: index for index, tracklet in enumerate(self.tracklets)}
        self.query, self.gallery = ([index_of[each.paths] for each in part] for part in (query, gallery))
        in_gallery = {tracklet.paths: index for index, tracklet in enumerate(gallery)}
        self.itself = torch.tensor(
            [in_gallery.get(tracklet.paths, -1) for tracklet in query], dtype=torch.int64, device="cpu"
        )

    def first_match(self) -> tuple[int, int]:
        """Indices of a query and of a gallery item that is a valid match for it.

        Raises:
            ValueError: no query has a match, so that no metric is defined.
        """
        protocol = self._protocol()
        if not len(protocol.row):
            name = self.dataset.name
            raise ValueError(
                f"dataset: expected queries with a match in the gallery, got none in {name}; name the "
                "persons (`vreid tracklets --boxes`), or use `vreid extract` and `vreid search`"
            )
        return int(protocol.row[0]), int(protocol.index[0])

    def count_matched(self) -> int:
        """Number of queries that have a valid match in the gallery."""
        return len(self._protocol().row.unique())

    def _protocol(self) -> Protocol:
        sizes = len(self.dataset.query), len(self.dataset.gallery)
        return Protocol(
            *ids(self.dataset),
            sizes=sizes,
            junk=self.dataset.junk,
            exclude=self.itself,
            rules=rules(self.dataset),
            device=torch.device("cpu"),
        )

    def evaluate(
        self,
        query: Tensor | StoredRows,
        gallery: Tensor | StoredRows,
        recipe: Recipe,
        metric: str | DistanceFunction,
    ) -> metrics.ReIDResult:
        """Compute the metrics of query features (Q,D) and gallery features (G,D).

        Under `torchrun`, each process uses its part of the gallery, and all return the same result. With
        re-ranking or a distance function, each process uses the whole gallery.
        """
        rank, size = world()
        part: Tensor | StoredRows | metrics.Shard = gallery
        rerank = rerank_options(recipe)
        if not callable(metric) and not rerank and 1 < size <= len(gallery):
            first, stop = (len(gallery) * number // size for number in (rank, rank + 1))
            rows = gallery[first:stop] if isinstance(gallery, Tensor) else gallery.part(first, stop)
            part = metrics.Shard(rows, first, len(gallery))
        return metrics.evaluate(
            query,
            part,
            *ids(self.dataset),
            metric=metric,
            ap=recipe.eval.ap,
            junk=self.dataset.junk,
            rules=rules(self.dataset),
            exclude=self.itself,
            rerank=rerank or False,
        )


def metric_of(model: nn.Module, recipe: Recipe) -> str | DistanceFunction:
    """The model's method `distance` if it has one, else the metric of the recipe.

    Raises:
        ValueError: the recipe requests re-ranking, and the model has its own distance function.
    """
    distance: DistanceFunction | None = getattr(model, "distance", None)
    if distance is not None and recipe.eval.rerank:
        raise ValueError(
            f"eval.rerank: expected false for model {recipe.model['name']!r}, which has its own distance "
            "function, got true"
        )
    return distance or recipe.eval.metric


def rerank_options(recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of `ops.k_reciprocal`, or an empty dict if the recipe does not use re-ranking."""
    if not recipe.eval.rerank:
        return {}
    k1, k2, weight = recipe.eval.rerank_k1, recipe.eval.rerank_k2, recipe.eval.rerank_lambda
    return {"k1": k1, "k2": k2, "lambda_value": weight}


def ids(dataset: TrackletDataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(q_pids, g_pids, q_camids, g_camids) of a data set, as for `metrics.evaluate` and `metrics.rank`."""
    q_pids, g_pids, q_camids, g_camids = (
        torch.tensor([getattr(tracklet, name) for tracklet in part], dtype=torch.int64, device="cpu")
        for name in ("pid", "camid")
        for part in (dataset.query, dataset.gallery)
    )
    return q_pids, g_pids, q_camids, g_camids


def rules(dataset: TrackletDataset) -> list[metrics.JunkRule]:
    """The `junk_tags` of a data set as the argument `rules` of `metrics.evaluate`.

    Raises:
        ValueError: a query or gallery tracklet does not have the tag.
    """
    return [
        metrics.JunkRule(tag, _tags(dataset.query, tag), _tags(dataset.gallery, tag), remove)
        for tag, remove in dataset.junk_tags.items()
    ]


def _tags(tracklets: Sequence[Tracklet], tag: str) -> Tensor:
    for tracklet in tracklets:
        if tag not in tracklet.tags:
            raise ValueError(f"junk_tags: expected tracklets with {tag!r}, got none in {tracklet.name!r}")
    return torch.tensor([tracklet.tags[tag] for tracklet in tracklets], dtype=torch.int64, device="cpu")
