"""Nearest neighbor search in features written by `vreid extract`."""

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
    """Features of one split of a feature folder.

    Attributes:
        features: (N,D).
        tracklets: name, pid, camid, ... of each row.
        metric: metric for comparing the features.
        folder: folder from which they were read.
        numbers: row index of each feature in the folder; None: 0 .. N-1.
        manifest: manifest of the folder; None: unknown.
    """

    features: Rows
    tracklets: list[dict[str, Any]]
    metric: str
    folder: Path
    numbers: Sequence[int] | None = None
    manifest: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Split({len(self.tracklets)} rows of {str(self.folder)!r}, {self.metric} metric)"


def read_split(folder: str | Path, split: str) -> Split:
    """Open the split "query" or "gallery" of a folder written by `export_features` and verify its checksums.

    Raises:
        ValueError: the folder or split does not exist, a file is damaged, or the features belong to a model
            with its own distance function (STAL).
    """
    stored = StoredFeatures(folder)
    metric = stored.manifest["metric"]
    if metric is None:
        name = stored.manifest["identity"]["model"]["name"]
        raise ValueError(
            f"features: expected features with a metric, got those of model {name!r} in {str(folder)!r}, "
            "which has its own distance function; use `vreid eval` or `vreid report`"
        )
    rows = stored.rows(split)
    stored.verify()
    where = Path(folder).resolve()
    return Split(rows, stored.tracklets(split), metric, where, stored.numbers(split), stored.manifest)


def search(query: Split, gallery: Split, top: int = 10) -> list[dict[str, Any]]:
    """Find the `top` nearest gallery tracklets of each query: name, pid, camid and distance.

    If query and gallery come from the same folder, a tracklet is not returned as its own neighbor. Uses
    faiss if it is installed, else `ops.top_k`, with the same results. The gallery is read in pieces.

    Raises:
        ValueError: top is less than 1, or the features belong to different models.
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
    query_rows, gallery_rows = (split.numbers or range(len(split.tracklets)) for split in (query, gallery))
    indices, distances = nearest(rows, items, top + same, query.metric, top_k=top_k)
    lists = []
    for tracklet, number, row_distances, row_indices in zip(
        query.tracklets, query_rows, distances.tolist(), indices.tolist(), strict=True
    ):
        found = [
            {key: gallery.tracklets[j][key] for key in ("name", "pid", "camid")} | {"distance": d}
            for d, j in zip(row_distances, row_indices, strict=True)
            if j >= 0 and not (same and gallery_rows[j] == number)
        ]
        lists.append({"query": tracklet["name"], "nearest": found[:top]})
    return lists


def faiss_top_k(query: Tensor, gallery: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """`ops.top_k`, accelerated with faiss.

    faiss selects k + 16 candidates by float32 distances, which are then sorted by `ops.pair_distances`. If
    rounding errors could rank a neighbor after the last candidate of a query, that query is repeated with
    `ops.top_k`.
    """
    import faiss

    num_candidates = min(k + 16, len(gallery))
    if num_candidates < k + 16:  # faiss is not faster for such a small gallery
        return ops.top_k(query, gallery, k, metric)
    rows, items = query.float(), gallery.float()
    if metric == "cosine":
        rows, items = F.normalize(rows, dim=1), F.normalize(items, dim=1)
    index = faiss.IndexFlatL2(items.shape[1])
    index.add(items.numpy())
    squares, found = (torch.from_numpy(part) for part in index.search(rows.numpy(), num_candidates))
    row = torch.arange(len(query)).repeat_interleave(num_candidates)
    found = found.sort(dim=1).values  # with the stable sort below, equal distances are in order of index
    distances = ops.pair_distances(query, gallery, row, found.flatten(), metric).view(found.shape)
    distances, order = distances.sort(dim=1, stable=True)
    distances, indices = distances[:, :k].contiguous(), found.gather(1, order)[:, :k].contiguous()
    last = squares.amax(1).double()
    kth = 2 * distances[:, -1] if metric == "cosine" else distances[:, -1].square()
    lengths = rows.norm(dim=1).double() + items.norm(dim=1).max()
    # Error bound for sums of D products in any order.
    unsure = last - kth <= 2.0**-24 * (query.shape[1] + 16) * lengths.square()
    if unsure.any():
        distances[unsure], indices[unsure] = ops.top_k(query[unsure], gallery, k, metric)
    return distances, indices
