"""k-reciprocal re-ranking without an N x N distance matrix.

Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
"""

from typing import Protocol

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
    for name, value in (("query", query), ("gallery", gallery)):
        _checks.floating(name, value, "(N,D)")
        if not len(value):
            raise ValueError(f"{name}: expected at least one row, got shape {tuple(value.shape)}")
    _checks.has_numbers("query", query)
    _checks.same_device("gallery", gallery, query.device)
    if gallery.shape[1] != query.shape[1]:
        raise ValueError(f"gallery: expected {query.shape[1]} columns like query, got {gallery.shape[1]}")
    if gallery.dtype != query.dtype:
        raise TypeError(f"gallery: expected dtype {query.dtype} of query, got {gallery.dtype}")
    check_options(k1, k2, lambda_value)
    if _observers.transformed() or not (_checks.held(query) and _checks.held(gallery)):
        raise RuntimeError(
            "k_reciprocal: expected ordinary tensors outside tracers and function transforms, got a tracer, "
            "a transform or a tensor subclass"
        )
    backend = backends.choose("k_reciprocal", backend, query.device, query.dtype)
    with torch.no_grad():
        args = signatures.KReciprocal(query, gallery, k1, k2, lambda_value)
        result: Tensor | ReRanked = function(backend, "k_reciprocal")(args)
    return _Dense(result) if isinstance(result, Tensor) else result


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
