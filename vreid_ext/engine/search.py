"""Nearest gallery tracklets of query tracklets, from features that `vreid extract` wrote."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vreid_ext import ops
from vreid_ext.models import model_factory


class Split(NamedTuple):
    """Rows of one split: features (N,D), and what each is."""

    features: Tensor
    rows: list[dict[str, Any]]
    metric: str


def read_split(folder: str | Path, split: str) -> Split:
    """Read "query" or "gallery" of a folder written by `export_features`.

    Raises:
        ValueError: no such folder or split; features of a model with a distance of its own (STAL).
    """
    from safetensors import safe_open

    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        raise ValueError(
            f"features: got {str(folder)!r}, which has no manifest.json: not written by `vreid extract`"
        )
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    name = manifest["recipe"]["model"]["name"]
    if hasattr(model_factory(name), "distance"):
        raise ValueError(
            f"features: {str(folder)!r} holds rows of model {name!r}, which are compared by the model's own "
            "distance alone; `vreid eval` and `vreid report` do that"
        )
    if split not in manifest["splits"]:
        raise ValueError(f"split: got {split!r}, {str(folder)!r} has {sorted(manifest['splits'])}")
    with safe_open(folder / "features.safetensors", "pt") as file:
        features = file.get_tensor(split)
    return Split(features, manifest["splits"][split], manifest["recipe"]["eval"]["metric"])


def search(query: Split, gallery: Split, top: int = 10) -> list[dict[str, Any]]:
    """For each query its name and the `top` nearest of the gallery: name, pid, camid and distance.

    On faiss where it is installed, else on `ops.top_k`; the answers are the same.

    Raises:
        ValueError: top below 1, or features of different models.
    """
    if query.metric != gallery.metric:
        raise ValueError(f"gallery: got features for the {gallery.metric} metric, wanted {query.metric}")
    try:
        distances, indices = faiss_top_k(query.features, gallery.features, top, query.metric)
    except ModuleNotFoundError:
        distances, indices = ops.top_k(query.features, gallery.features, top, query.metric)
    return [
        {
            "query": row["name"],
            "nearest": [
                {key: gallery.rows[j][key] for key in ("name", "pid", "camid")} | {"distance": d}
                for d, j in zip(near.tolist(), items.tolist(), strict=True)
                if j >= 0
            ],
        }
        for row, near, items in zip(query.rows, distances, indices, strict=True)
    ]


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
