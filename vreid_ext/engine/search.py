"""Nearest gallery tracklets of query tracklets, from features that `vreid extract` wrote."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vreid_ext import ops
from vreid_ext.features.rows import Rows
from vreid_ext.features.stored import StoredFeatures
from vreid_ext.metrics.ranking import nearest, pair


class Split(NamedTuple):
    """Rows of one split: features (N,D), what each is, the metric they are compared by, and the folder.

    numbers: the row that each is in that folder; in order unless given.
    """

    features: Rows
    tracklets: list[dict[str, Any]]
    metric: str
    folder: Path
    numbers: Sequence[int] | None = None

    def __repr__(self) -> str:
        return f"Split({len(self.tracklets)} rows of {str(self.folder)!r}, {self.metric} metric)"


def read_split(folder: str | Path, split: str) -> Split:
    """Open "query" or "gallery" of a folder written by `export_features`, and compare its checksums.

    Raises:
        ValueError: no such folder or split, a damaged file; features of a model with a distance of its own
            (STAL).
    """
    stored = StoredFeatures(folder)
    metric = stored.manifest["metric"]
    if metric is None:
        name = stored.manifest["identity"]["model"]["name"]
        raise ValueError(
            f"features: {str(folder)!r} holds rows of model {name!r}, which are compared by the model's own "
            "distance alone; `vreid eval` and `vreid report` do that"
        )
    rows = stored.rows(split)
    stored.verify()
    return Split(rows, stored.tracklets(split), metric, Path(folder).resolve(), stored.numbers(split))


def search(query: Split, gallery: Split, top: int = 10) -> list[dict[str, Any]]:
    """For each query its name and the `top` nearest of the gallery: name, pid, camid and distance.

    Where both come from one folder, a tracklet is not its own neighbour. On faiss where it is installed, else
    on `ops.top_k`; the answers are the same. The gallery is read in pieces.

    Raises:
        ValueError: top below 1, or features of different models.
    """
    if top < 1:
        raise ValueError(f"top: expected at least 1, got {top}")
    if query.metric != gallery.metric:
        raise ValueError(
            f"gallery: expected features for the {query.metric} metric, got features for {gallery.metric}"
        )
    rows, items = pair(query.features, gallery.features)
    top_k = faiss_top_k if find_spec("faiss") else ops.top_k
    same = query.folder == gallery.folder
    own, held = (split.numbers or range(len(split.tracklets)) for split in (query, gallery))
    indices, distances = nearest(rows, items, top + same, query.metric, top_k=top_k)
    lists = []
    for tracklet, number, near, places in zip(
        query.tracklets, own, distances.tolist(), indices.tolist(), strict=True
    ):
        found = [
            {key: gallery.tracklets[j][key] for key in ("name", "pid", "camid")} | {"distance": d}
            for d, j in zip(near, places, strict=True)
            if j >= 0 and not (same and held[j] == number)
        ]
        lists.append({"query": tracklet["name"], "nearest": found[:top]})
    return lists


def faiss_top_k(query: Tensor, gallery: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """`ops.top_k` with faiss in front: it proposes a few more than k items by float32 distances, which are
    then ordered by those of `ops.pair_distances`. A query whose proposals end within rounding of its k-th
    distance is left to `ops.top_k`.
    """
    import faiss

    proposals = min(k + 16, len(gallery))
    if proposals < k + 16:  # so small that there is nothing to gain
        return ops.top_k(query, gallery, k, metric)
    rows, items = query.float(), gallery.float()
    if metric == "cosine":
        rows, items = F.normalize(rows, dim=1), F.normalize(items, dim=1)
    index = faiss.IndexFlatL2(items.shape[1])
    index.add(items.numpy())
    squares, found = (torch.from_numpy(part) for part in index.search(rows.numpy(), proposals))
    row = torch.arange(len(query)).repeat_interleave(proposals)
    found = found.sort(dim=1).values  # ascending, so that a stable sort leaves equal distances in order
    distances = ops.pair_distances(query, gallery, row, found.flatten(), metric).view(found.shape)
    distances, order = distances.sort(dim=1, stable=True)
    distances, indices = distances[:, :k].contiguous(), found.gather(1, order)[:, :k].contiguous()
    last = squares.amax(1).double()
    kth = 2 * distances[:, -1] if metric == "cosine" else distances[:, -1].square()
    lengths = rows.norm(dim=1).double() + items.norm(dim=1).max()
    unsure = last - kth <= 2.0**-24 * (8 * query.shape[1] ** 0.5 + 16) * lengths.square()
    if unsure.any():
        distances[unsure], indices[unsure] = ops.top_k(query[unsure], gallery, k, metric)
    return distances, indices
