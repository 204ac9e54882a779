"""k-reciprocal re-ranking without matrices of all against all.

Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
"""

from typing import Protocol

import torch
from torch import Tensor

from vreid_ext import _checks, _observers, backends
from vreid_ext.backends import reference
from vreid_ext.backends.table import function


class ReRanked(Protocol):
    """Re-ranked distances (Q,G) that are computed when they are asked for.

    Attributes:
        shape: (Q,G).
    """

    shape: tuple[int, int]

    def rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, G) the distances of these queries. `rows(0, Q)` gives all.

        float64 for float64 features. For the others float32, or float64 with backend "reference".
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
    """Re-ranked distances of Q queries and G gallery items, N = Q + G in all.

    With D(i,j) = |x_i - x_j|^2, D'(i,j) = D(i,j) / max_j D(i,j), N(i,k) the k nearest of all N items to i
    (itself the first), and R(i,k) = {j in N(i,k) : i in N(j,k)}:

        R*(i) = R(i,k1+1), and with each c in it also R(c,k1/2+1) where two thirds of that lie in R(i,k1+1)
        V(i,j) = exp(-D'(i,j)) / sum over R*(i)  for j in R*(i), else 0
        V(i) becomes the mean of V over N(i,k2)
        J(i,j) = 1 - s / (2 - s),  s = sum_g min(V(i,g), V(j,g))
        distance = (1 - lambda) J + lambda D'

    as the published code computes it. V has O(k1 k2) entries in a row, and J is 1 wherever two rows do not
    meet, so time beyond two matrix products and memory beyond the features are O(N) for given k1 and k2.
    Neighbours are those of `ops.top_k` with "euclidean". For the cosine give features of unit length.

    Args:
        query: (Q,D) float16, bfloat16, float32 or float64.
        gallery: (G,D).
        k1: neighbours that make a set, at least 1.
        k2: neighbours that are averaged, at least 1 (which averages nothing).
        lambda_value: weight of the original distance, 0 to 1.
        backend: "auto", "native" or "reference" (dense, O(N^2) memory).

    Not differentiable, and not for tracers and transforms: the number of neighbours depends on the data.

    Raises:
        RuntimeError: a call that `torch.jit.trace` records or `torch.func` transforms; fake tensors.
        TypeError, ValueError: naming the argument, what was expected and got; a row that is not
            finite, or longer than 1e18.
    """
    for name, value in (("query", query), ("gallery", gallery)):
        _checks.floating(name, value, "(N,D)")
        if not len(value):
            raise ValueError(f"{name}: expected at least one row, got shape {tuple(value.shape)}")
    _checks.has_numbers("query", query)
    _checks.same_device("gallery", gallery, query.device)
    if gallery.shape[1] != query.shape[1]:
        raise ValueError(f"gallery: expected {query.shape[1]} columns as query has, got {gallery.shape[1]}")
    if gallery.dtype != query.dtype:
        raise TypeError(f"gallery: expected dtype {query.dtype} as query has, got {gallery.dtype}")
    check_options(k1, k2, lambda_value)
    if _observers.transformed() or not (_checks.held(query) and _checks.held(gallery)):
        raise RuntimeError(
            "k_reciprocal: expected numbers, got a tracer, a function transform or fake tensors"
        )
    backend = backends.choose("k_reciprocal", backend, query.device, query.dtype)
    with torch.no_grad():
        if backend == "reference":
            return _Dense(reference.k_reciprocal(query, gallery, k1, k2, lambda_value))
        result: ReRanked = function(backend, "k_reciprocal")(query, gallery, k1, k2, lambda_value)
        return result


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
