"""`torchreid.metrics.evaluate_rank` and `torchreid.utils.re_ranking`, with their signatures and results.

from vreid_ext.compat.torchreid import evaluate_rank, re_ranking
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vreid_ext.metrics.reid import evaluate_distances
from vreid_ext.ops._checks import array, flag, integer
from vreid_ext.ops.rerank import check_options

Array = np.ndarray | Tensor


def evaluate_rank(
    distmat: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int = 50,
    use_metric_cuhk03: bool = False,
    use_cython: bool = True,
) -> tuple[np.ndarray, float]:
    """CMC (max_rank,) float32 and mAP from a distance matrix (Q,G).

    The CMC has G entries where the gallery has fewer than `max_rank`. Equal distances rank by gallery index
    (torchreid leaves them in the order of an unstable sort), and no pid is special. `use_cython` is ignored.

    Raises:
        ValueError: `use_metric_cuhk03`, whose result is drawn at random; no query with a positive.
    """
    flag("use_metric_cuhk03", use_metric_cuhk03)
    if use_metric_cuhk03:
        raise ValueError("use_metric_cuhk03: got True, wanted False: its result is drawn at random")
    distances = array("distmat", distmat)
    if distances.dim() != 2 or 0 in distances.shape:
        raise ValueError(f"distmat: expected shape (Q,G), got {tuple(distances.shape)}")
    max_rank = integer("max_rank", max_rank, 1)
    result = evaluate_distances(
        distances,
        *_numbered({"q_pids": q_pids, "g_pids": g_pids}),  # a pid of -1 is like any other here
        *_numbered({"q_camids": q_camids, "g_camids": g_camids}),
        max_rank=min(max_rank, distances.shape[1]),
    )
    return result.cmc.numpy().astype(np.float32), result.mAP


def _numbered(parts: dict[str, Any]) -> list[np.ndarray]:
    """Numbers from 0 for the labels of two arrays: integers, or names."""
    arrays = []
    for name, part in parts.items():
        try:
            labels = np.asarray(part)
        except (ValueError, TypeError, RuntimeError) as error:
            raise TypeError(
                f"{name}: expected an array of labels, got {type(part).__name__}: {error}"
            ) from error
        if labels.dtype.kind not in "biuUS" or labels.ndim != 1:
            raise TypeError(
                f"{name}: expected integers or names (n,), got {labels.dtype} of shape {labels.shape}"
            )
        arrays.append(labels)
    if (arrays[0].dtype.kind in "US") != (arrays[1].dtype.kind in "US"):
        raise TypeError(f"{', '.join(parts)}: expected both integers or both names, got one of each")
    _, numbers = np.unique(np.concatenate(arrays), return_inverse=True)
    return np.split(numbers, [len(arrays[0])])


def re_ranking(
    q_g_dist: Array,
    q_q_dist: Array,
    g_g_dist: Array,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> np.ndarray:
    """Re-ranked distances (Q,G) float32 from distances between queries and gallery, and within each.

    The formulas of `ops.k_reciprocal` with the square of these distances as D. Beyond its arguments and
    result it takes O(N k1) memory; `ops.k_reciprocal` takes features and needs none of the matrices.
    """
    from vreid_ext.backends.native.rerank import KReciprocal

    check_options(k1, k2, lambda_value)
    given = {"q_g_dist": q_g_dist, "q_q_dist": q_q_dist, "g_g_dist": g_g_dist}
    between, queries, items = (array(name, part).float() for name, part in given.items())
    if between.dim() != 2 or 0 in between.shape:
        raise ValueError(f"q_g_dist: expected shape (Q,G), got {tuple(between.shape)}")
    q, g = between.shape
    for name, part, size in (("q_q_dist", queries, q), ("g_g_dist", items, g)):
        if part.shape != (size, size):
            raise ValueError(f"{name}: got shape {tuple(part.shape)}, wanted ({size}, {size})")
    k = min(max(k1 + 1, k2), q + g)
    nearest = []
    for left, right in ((queries, between), (between.T, items)):
        for first in range(0, len(left), 512):
            rows = torch.cat([left[first : first + 512], right[first : first + 512]], 1)
            values, index = rows.topk(k, dim=1, largest=False)
            nearest.append((index, values.double(), rows.amax(1).double()))
    rank, distances, farthest = (torch.cat(part) for part in zip(*nearest, strict=True))

    def of_pairs(row: Tensor, index: Tensor) -> Tensor:
        first, second = torch.minimum(row, index), torch.maximum(row, index)
        result = torch.empty(len(row), dtype=torch.float64)
        for part, (a, b), matrix in (
            (second < q, (first, second), queries),
            ((first < q) & (second >= q), (first, second - q), between),
            (first >= q, (first - q, second - q), items),
        ):
            result[part] = matrix[a[part], b[part]].double()
        return result

    sparse = KReciprocal(rank, distances, farthest, of_pairs, q, k1, k2, lambda_value)
    return sparse.rerank(0, between.clone(), None, None).numpy()
