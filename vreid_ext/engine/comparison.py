"""Which tracklets an evaluation compares, and how."""

from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext import metrics
from vreid_ext.data import TrackletDataset
from vreid_ext.distributed import world
from vreid_ext.engine.recipe import Recipe
from vreid_ext.features.rows import DistanceFunction
from vreid_ext.features.stored import StoredRows
from vreid_ext.metrics.protocol import Protocol


class Comparison:
    """The tracklets of an evaluation, each once, and which query is compared with which gallery.

    Attributes:
        tracklets: queries and gallery. A query that is part of the gallery is embedded once, and it never
            counts as its own match.
        query, gallery: index into `tracklets` of every query and gallery item.
        itself: (Q,) the gallery item that is the query itself, -1 where there is none.
    """

    def __init__(self, dataset: TrackletDataset) -> None:
        self.dataset = dataset
        query, gallery = dataset.query, dataset.gallery
        self.tracklets = list({tracklet.paths: tracklet for tracklet in (*query, *gallery)}.values())
        place = {tracklet.paths: index for index, tracklet in enumerate(self.tracklets)}
        self.query, self.gallery = ([place[each.paths] for each in part] for part in (query, gallery))
        in_gallery = {tracklet.paths: index for index, tracklet in enumerate(gallery)}
        self.itself = torch.tensor(
            [in_gallery.get(tracklet.paths, -1) for tracklet in query], dtype=torch.int64, device="cpu"
        )

    def first_match(self) -> tuple[int, int]:
        """A query and a gallery item of its person that counts for it, by their places.

        Raises:
            ValueError: there is none, so that there are no figures either.
        """
        sizes = len(self.dataset.query), len(self.dataset.gallery)
        protocol = Protocol(
            *ids(self.dataset),
            sizes=sizes,
            junk=self.dataset.junk,
            exclude=self.itself,
            device=torch.device("cpu"),
        )
        if not len(protocol.row):
            name = self.dataset.name
            raise ValueError(
                f"dataset: no query of {name} has a match in the gallery, so there are no figures; name the "
                "persons (`vreid tracklets --boxes`), or use `vreid extract` and `vreid search`"
            )
        return int(protocol.row[0]), int(protocol.index[0])

    def evaluate(
        self,
        query: Tensor | StoredRows,
        gallery: Tensor | StoredRows,
        recipe: Recipe,
        metric: str | DistanceFunction,
    ) -> metrics.ReIDResult:
        """Figures of query features (Q,D) and gallery features (G,D).

        Under `torchrun` every process compares with its part of the gallery; all get the figures. With
        re-ranking, which looks at all pairs, and with a distance function every process compares with all.
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
            exclude=self.itself,
            rerank=rerank or False,
        )


def metric_of(model: nn.Module, recipe: Recipe) -> str | DistanceFunction:
    """How features of the model are compared: by its own `distance`, or as the recipe says.

    Raises:
        ValueError: re-ranking is asked for where the model has a distance of its own.
    """
    distance: DistanceFunction | None = getattr(model, "distance", None)
    if distance is not None and recipe.eval.rerank:
        raise ValueError(
            f"eval.rerank: expected false for model {recipe.model['name']!r}, which compares by a distance "
            "function of its own, got true"
        )
    return distance or recipe.eval.metric


def rerank_options(recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of `ops.k_reciprocal`; empty where the recipe does not re-rank."""
    if not recipe.eval.rerank:
        return {}
    k1, k2, weight = recipe.eval.rerank_k1, recipe.eval.rerank_k2, recipe.eval.rerank_lambda
    return {"k1": k1, "k2": k2, "lambda_value": weight}


def ids(dataset: TrackletDataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(q_pids, g_pids, q_camids, g_camids), as `metrics.evaluate` and `metrics.rank` take them."""
    q_pids, g_pids, q_camids, g_camids = (
        torch.tensor([getattr(tracklet, which) for tracklet in part], dtype=torch.int64, device="cpu")
        for which in ("pid", "camid")
        for part in (dataset.query, dataset.gallery)
    )
    return q_pids, g_pids, q_camids, g_camids
