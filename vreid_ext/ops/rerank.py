"""k-reciprocal re-ranking and its Jaccard distances, without an N x N distance matrix.

Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vreid_ext import _checks, _observers, backends
from vreid_ext.backends import signatures
from vreid_ext.backends.table import function


class ReRanked(Protocol):
    """Re-ranked distances (Q,G) that are computed on demand.

    Attributes:
        shape: (Q,G).
    """

    shape: tuple[int, int]

    def rows(self, start: int, stop: int) -> Tensor:
        """The distances (stop - start, G) of some queries; `rows(0, Q)` returns all.

        The dtype is float64 for float64 features. For other dtypes it is float32, or float64 with
        backend="reference".
        """


def k_reciprocal(
    query: Tensor,
    gallery: Tensor,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    backend: str = "auto",
) -> ReRanked:
    """Re-ranked distances of Q queries and G gallery items, N = Q + G in total.

    Let D(i,j) = |x_i - x_j|^2, D'(i,j) = D(i,j) / max_j D(i,j), N(i,k) the k items nearest to i among all N
    (the first is i itself), and R(i,k) = {j in N(i,k) : i in N(j,k)}. As in the published code:

        R*(i) = R(i,k1+1) joined with R(c,k1/2+1) for each c in R(i,k1+1) for which more than two thirds of
                R(c,k1/2+1) lie in R(i,k1+1)
        V(i,j) = exp(-D'(i,j)) / sum over R*(i)  for j in R*(i), else 0
        V(i) is replaced by the mean of V over N(i,k2)
        J(i,j) = 1 - s / (2 - s),  s = sum_g min(V(i,g), V(j,g))
        distance = (1 - lambda) J + lambda D'

    A row of V has O(k1 k2) nonzero entries, and J is 1 for pairs of rows without a common nonzero entry. For
    given k1 and k2, the time is O(N) in addition to two matrix products, and the memory is O(N) in addition
    to the features. Neighbors are those of `ops.top_k` with "euclidean". For cosine distances pass
    L2-normalized features.

    Args:
        query: (Q,D) float16, bfloat16, float32 or float64.
        gallery: (G,D).
        k1: number of neighbors in a set, at least 1.
        k2: number of neighbors that are averaged, at least 1 (1: no averaging).
        lambda_value: weight of the original distance, 0 to 1.
        backend: "auto", "native" or "reference" (dense, O(N^2) memory).

    Not differentiable. Tracers and transforms are not supported, because the number of neighbors depends on
    the data.

    Raises:
        RuntimeError: called under `torch.jit.trace` or `torch.func`, or with fake tensors.
        TypeError, ValueError: an argument has the wrong type or value, e.g. a row that is not finite or has a
            norm above 1e18.
    """
    _rows("query", query)
    _rows("gallery", gallery)
    _checks.has_numbers("query", query)
    _checks.same_device("gallery", gallery, query.device)
    if gallery.shape[1] != query.shape[1]:
        raise ValueError(f"gallery: expected {query.shape[1]} columns like query, got {gallery.shape[1]}")
    if gallery.dtype != query.dtype:
        raise TypeError(f"gallery: expected dtype {query.dtype} of query, got {gallery.dtype}")
    check_options(k1, k2, lambda_value)
    _check_ordinary("k_reciprocal", query, gallery)
    backend = backends.choose("k_reciprocal", backend, query.device, query.dtype)
    with torch.no_grad():
        args = signatures.KReciprocal(query, gallery, k1, k2, lambda_value)
        result: Tensor | ReRanked = function(backend, "k_reciprocal")(args)
    return _Dense(result) if isinstance(result, Tensor) else result


class JaccardGraph(NamedTuple):
    """Sparse distances between N items, symmetric: distance[n] is that of item i and item index[n] for
    start[i] <= n < start[i+1], in ascending order of index. These are the arrays of a CSR matrix.

    Attributes:
        start: (N+1,) int64.
        index: (E,) int64.
        distance: (E,), 0 between an item and itself. The dtype is that of `ReRanked.rows`.
    """

    start: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    distance: Tensor


def jaccard_graph(
    features: Tensor, k1: int = 20, k2: int = 6, limit: float = 1.0, *, backend: str = "auto"
) -> JaccardGraph:
    """The Jaccard distances J of `k_reciprocal` between N items, except those that are 1 or above `limit`.

    J(i,j) is 1 if the rows V(i) and V(j) have no common nonzero entry, which holds for almost all pairs. The
    others are O(N k1 k2) pairs, so memory is O(N) for given k1 and k2, in addition to the features. The time
    is that of one matrix product of the features and O(N).

    Args:
        features: (N,D) float16, bfloat16, float32 or float64.
        k1: number of neighbors in a set, at least 1.
        k2: number of neighbors that are averaged, at least 1 (1: no averaging).
        limit: the largest distance that is kept, 0 to 1.
        backend: "auto", "native" or "reference" (dense, O(N^2) memory).

    Not differentiable. Tracers and transforms are not supported, because the number of distances depends on
    the data.

    Raises:
        RuntimeError: called under `torch.jit.trace` or `torch.func`, or with fake tensors.
        TypeError, ValueError: an argument has the wrong type or value, e.g. a row that is not finite or has a
            norm above 1e18.
    """
    _rows("features", features)
    _checks.has_numbers("features", features)
    check_options(k1, k2, 0)
    limit = _checks.real("limit", limit, 0, 1)
    _check_ordinary("jaccard_graph", features)
    backend = backends.choose("jaccard_graph", backend, features.device, features.dtype)
    with torch.no_grad():
        args = signatures.JaccardGraph(features, k1, k2, limit)
        return JaccardGraph(*function(backend, "jaccard_graph")(args))


def _rows(name: str, value: Tensor) -> None:
    _checks.floating(name, value, "(N,D)")
    if not len(value):
        raise ValueError(f"{name}: expected at least one row, got shape {tuple(value.shape)}")


def _check_ordinary(op: str, *tensors: Tensor) -> None:
    if _observers.transformed() or not all(map(_checks.held, tensors)):
        raise RuntimeError(
            f"{op}: expected ordinary tensors outside tracers and function transforms, got a tracer, "
            "a transform or a tensor subclass"
        )


def check_options(k1: object, k2: object, lambda_value: object) -> None:
    for name, value in (("k1", k1), ("k2", k2)):
        _checks.integer(name, value, 1)
    _checks.real("lambda_value", lambda_value, 0, 1)


class _Dense:
    def __init__(self, distances: Tensor) -> None:
        self.shape = (distances.shape[0], distances.shape[1])
        self._distances = distances

    def rows(self, start: int, stop: int) -> Tensor:
        return self._distances[start:stop]
