"""Rankings without a sort and without the full distance matrix: ranks by counting, and the k nearest items.

Symbols: Q queries, G gallery items, feature dimension D. Distances are those of `pair_distances`, in float64:

    cosine       d(q,g) = 1 - q.g / (|q| |g|), 1 if a row is zero
    euclidean    d(q,g) = |q - g|_2

Equal distances are ordered by gallery index. `rank_counts` takes given distances, one tile of columns at a
time; the other ops take features and compute the tiles themselves. On the CPU these are float32 matrix
products with an error bound. A comparison that is ambiguous within the bound is repeated in float64. The
order is therefore that of float64 at the cost of float32, and does not depend on tiles or threads.

The bound holds for any features: (D + 16) u |q| |g| for a product of rows of D <= 128 numbers, and
(128 + ceil(D / 128) + 15) u |q| |g| for longer rows, with u = 2^-24. It follows from the order of the sums
(`backends/native/ranking.py`).

Features are float16, bfloat16, float32 (the former two are converted exactly to float32) or float64. The ops
are not differentiable. `backend` is "auto", "reference", "native" or, for `rank_counts` of float32 and
narrower dtypes, "cuda".

There is no GPU kernel for features: plain torch processes one query after another and synchronizes for
each, with temporaries of at most 2^24 float64 values (128 MiB) or, in `top_k`, G values. `vreid eval` ranks
on the CPU.
"""

from typing import Any

import torch
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.backends import signatures
from vreid_ext.backends.errors import all_finite
from vreid_ext.ops._library import register

Groups = tuple[Tensor, Tensor]


def pair_distances(
    query: Tensor,
    gallery: Tensor,
    row: Tensor,
    index: Tensor,
    metric: str = "cosine",
    *,
    backend: str = "auto",
) -> Tensor:
    """The float64 distances of the pairs (query[row[p]], gallery[index[p]]).

    Args:
        query: (Q,D).
        gallery: (G,D).
        row, index: (P,) int64.
        metric: "cosine" or "euclidean".

    Returns:
        (P,) float64.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _features(query, gallery, metric)
    _integers("row", row, None, query.device)
    _integers("index", index, row.shape, query.device)
    _checks.within("row", row, 0, len(query))
    _checks.within("index", index, 0, len(gallery))
    return _pair_distances(backend, query, gallery, row, index, metric)


def rank_counts(
    distances: Tensor,
    start: Tensor,
    index: Tensor,
    distance: Tensor | None = None,
    left_out: Groups | None = None,
    kept: Tensor | None = None,
    *,
    offset: int = 0,
    check: bool = False,
    backend: str = "auto",
) -> Tensor:
    """For each positive, the number of items in a tile of distances that rank before it.

        counts[p] = #{j kept, not left out : (d[i,j], j) < (distance[p], index[p])}

    in lexicographic order, for start[i] <= p < start[i+1]. The rank of a positive is one plus the sum of its
    counts over all tiles of the gallery.

    Args:
        distances: (Q,g), columns `offset` to `offset + g` of the distance matrix. Half precision is converted
            to float32.
        start: (Q+1,) int64, nondecreasing from 0 to P; query i has the positives start[i] to start[i+1] - 1.
        index: (P,) int64, gallery indices of the positives, which may lie outside this tile.
        distance: (P,) float64, distances of the positives; None for those of the matrix, whose columns then
            include all positives.
        left_out: items to exclude per query, such as those of its own camera: a pair of int64 tensors, start
            (Q+1,), nondecreasing as above, and gallery indices, nondecreasing within a query.
        kept: (g,) bool, items of the tile to include for all queries; None for all items.
        offset: gallery index of the first column; that of the last column must fit into int64.
        check: raise a ValueError if a distance is NaN or infinite, also one of an item that is not included.
            Without the check, NaN ranks before no positive. The CPU kernel checks a row when it reads it.

    Returns:
        (P,) int64.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("distances", distances, "(Q,G)")
    _checks.has_numbers("distances", distances)
    rows, columns = distances.shape
    _offset(offset, columns)
    _positives(start, index, rows, distances.device)
    if distance is None:
        _checks.within("index", index, offset, offset + columns)
    else:
        _distance(distance, index)
    groups = _left_out(left_out, rows, distances.device)
    _checks.mask("kept", kept, (columns,), distances.device, "(G,)")
    _checks.flag("check", check)
    if check and not len(index):  # then no kernel runs
        all_finite("distances", distances.isfinite().all(1))
    if distances.dtype in (torch.float16, torch.bfloat16):
        distances = distances.float()
    return _rank_counts(backend, distances, start, index, distance, *groups, kept, offset, check)


def feature_rank_counts(
    query: Tensor,
    gallery: Tensor,
    start: Tensor,
    index: Tensor,
    distance: Tensor,
    left_out: Groups | None = None,
    kept: Tensor | None = None,
    *,
    metric: str = "cosine",
    offset: int = 0,
    backend: str = "auto",
) -> Tensor:
    """`rank_counts` of the distances between features, without the full distance matrix.

    Args:
        query: (Q,D).
        gallery: (g,D), rows `offset` to `offset + g` of the gallery. Add the counts of all chunks to get
            those of the gallery.
        metric: "cosine" or "euclidean".
        start, index, distance, left_out, kept: as for `rank_counts`. Compute `distance` by `pair_distances`
            with the same backend. It replaces the positives' own entries in the tile, so that no positive is
            counted before itself.

    Returns:
        (P,) int64.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value, e.g. a row that is not finite or, for
            "euclidean", has a norm above 1e18.
    """
    _features(query, gallery, metric)
    _offset(offset, len(gallery))
    _positives(start, index, len(query), query.device)
    _distance(distance, index)
    groups = _left_out(left_out, len(query), query.device)
    _checks.mask("kept", kept, (len(gallery),), query.device, "(G,)")
    return _feature_rank_counts(
        backend, query, gallery, start, index, distance, *groups, kept, metric, offset
    )


def top_k(
    query: Tensor,
    gallery: Tensor,
    k: int,
    metric: str = "cosine",
    left_out: Groups | None = None,
    kept: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The k nearest gallery items of every query, nearest first; equal distances are ordered by index.

    The memory in addition to the features is O(Q k) and one tile.

    Args:
        query: (Q,D).
        gallery: (G,D).
        k: at least 1; may exceed G.
        metric: "cosine" or "euclidean".
        left_out, kept: as for `rank_counts`.

    Returns:
        distances (Q,k) float64 and indices (Q,k) int64, filled up with infinity and -1 if fewer than k items
        are included.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value, e.g. a row that is not finite or, for
            "euclidean", has a norm above 1e18.
    """
    distances, indices, _ = nearest_and_farthest(query, gallery, k, metric, left_out, kept, backend=backend)
    return distances, indices


def nearest_and_farthest(
    query: Tensor,
    gallery: Tensor,
    k: int,
    metric: str = "cosine",
    left_out: Groups | None = None,
    kept: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """`top_k`, plus the distance (Q,) float64 from each query to its farthest item, from the same pass.

    The farthest distance has float32 accuracy; re-ranking divides by it. It is -infinity for a query without
    included items.
    """
    _features(query, gallery, metric)
    k = _checks.integer("k", k, 1)
    groups = _left_out(left_out, len(query), query.device)
    _checks.mask("kept", kept, (len(gallery),), query.device, "(G,)")
    result: tuple[Tensor, Tensor, Tensor] = _top_k(backend, query, gallery, k, metric, *groups, kept)
    return result


def _features(query: Any, gallery: Any, metric: Any) -> None:
    _checks.floating("query", query, "(Q,D)")
    _checks.has_numbers("query", query)
    _checks.floating("gallery", gallery, "(G,D)")
    _checks.same_device("gallery", gallery, query.device)
    _checks.choice("metric", metric, ("cosine", "euclidean"))
    if gallery.shape[1] != query.shape[1]:
        raise ValueError(f"gallery: expected {query.shape[1]} columns like query, got {gallery.shape[1]}")
    if gallery.dtype != query.dtype:
        raise TypeError(f"gallery: expected dtype {query.dtype} of query, got {gallery.dtype}")


def _integers(name: str, value: Any, shape: tuple[int, ...] | None, device: torch.device) -> None:
    if not isinstance(value, Tensor) or value.dtype != torch.int64:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: expected an int64 tensor, got {got}")
    if value.dim() != 1 or (shape is not None and value.shape != shape):
        raise ValueError(
            f"{name}: expected shape {tuple(shape) if shape else '(P,)'}, got {tuple(value.shape)}"
        )
    _checks.same_device(name, value, device)


def _offset(offset: Any, columns: int) -> None:
    _checks.integer("offset", offset, -(2**63))
    if offset + columns > 2**63:
        raise ValueError(
            f"offset: expected gallery indices that fit into 64 bits, got {offset} for {columns} columns"
        )


def _ascending(name: str, start: Tensor, total: int) -> None:
    """Check `start`, the limits of each query's entries among `total`: nondecreasing, from 0 to `total`."""
    _checks.within(name, start, 0, total + 1)
    if _checks.seen(start) and (start.diff() < 0).any():
        row = int((start.diff() < 0).nonzero()[0])
        raise ValueError(
            f"{name}: expected nondecreasing values from 0 to {total}, got {int(start[row])} before "
            f"{int(start[row + 1])}"
        )


def _positives(start: Any, index: Any, rows: int, device: torch.device) -> None:
    _integers("start", start, (rows + 1,), device)
    _integers("index", index, None, device)
    _ascending("start", start, len(index))
    if _checks.seen(start) and (start[0] > 0 or start[-1] < len(index)):
        raise ValueError(
            f"start: expected values from 0 to P = {len(index)}, got {int(start[0])} to {int(start[-1])}"
        )


def _distance(distance: Any, index: Tensor) -> None:
    if not isinstance(distance, Tensor) or distance.dtype != torch.float64:
        got = distance.dtype if isinstance(distance, Tensor) else type(distance).__name__
        raise TypeError(f"distance: expected a float64 tensor, got {got}")
    if distance.shape != index.shape:
        raise ValueError(f"distance: expected shape {tuple(index.shape)}, got {tuple(distance.shape)}")
    _checks.same_device("distance", distance, index.device)


def _left_out(left_out: Any, rows: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Check and return start and index; both None if no item is left out."""
    if left_out is None:
        return None, None
    if not isinstance(left_out, tuple) or len(left_out) != 2:
        raise TypeError(f"left_out: expected None or a pair (start, index), got {type(left_out).__name__}")
    _integers("left_out[0]", left_out[0], (rows + 1,), device)
    _integers("left_out[1]", left_out[1], None, device)
    start, index = left_out
    _ascending("left_out[0]", start, len(index))
    if _checks.seen(index):
        falls = index[start[0] : start[-1]].diff() < 0
        between = start[1:-1] - start[0] - 1  # the last entry of a query may be above the first of the next
        falls[between[(between >= 0) & (between < len(falls))]] = False
        if falls.any():
            item = int(start[0]) + 1 + int(falls.nonzero()[0])
            raise ValueError(
                "left_out[1]: expected nondecreasing indices within a query, got "
                f"{int(index[item - 1])} before {int(index[item])}"
            )
    return (start, index) if len(index) else (None, None)


# The reference loops over queries and reads their positives, so it cannot be traced.
_pair_distances = register("pair_distances", signatures.PairDistances, traceable=False)
_rank_counts = register("rank_counts", signatures.RankCounts, traceable=False)
_feature_rank_counts = register("feature_rank_counts", signatures.FeatureRankCounts, traceable=False)
_top_k = register("top_k", signatures.TopK, traceable=False)
