"""k-reciprocal re-ranking as published, with dense matrices."""

import torch
from torch import Tensor

from vreid_ext.backends.errors import finite_rows
from vreid_ext.backends.reference.ranking import check_finite, pair_distances


def k_reciprocal(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> Tensor:
    """Re-ranked distances (Q,G) float64 from features."""
    check_finite(query, gallery, "euclidean")
    distances = _pairwise(torch.cat([query, gallery]))
    return k_reciprocal_distances(distances, len(query), k1, k2, lambda_value)


def k_reciprocal_distances(distances: Tensor, queries: int, k1: int, k2: int, lambda_value: float) -> Tensor:
    """Re-ranked distances (Q,G) from all pairwise distances (N,N), queries before gallery items."""
    weights, scaled = _encoded(distances, k1, k2)
    jaccard = _jaccard(weights[:queries], weights[queries:])
    return (1 - lambda_value) * jaccard + lambda_value * scaled[:queries, queries:]


def jaccard_graph(features: Tensor, k1: int, k2: int, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """The start, index and distance (float64) of each row's Jaccard distances up to `limit`."""
    norms = torch.linalg.vector_norm(features, dim=1, dtype=torch.float64)
    finite_rows("features", norms.square(), "euclidean")
    weights, _ = _encoded(_pairwise(features), k1, k2)
    jaccard = _jaccard(weights, weights).clamp(min=0).fill_diagonal_(0)
    # Pairs without a common non-zero weight have the distance 1 and are left out.
    kept = (jaccard <= limit) & ((weights > 0).double() @ (weights > 0).double().T > 0)
    row, index = kept.fill_diagonal_(True).nonzero(as_tuple=True)
    start = torch.cat([row.new_zeros(1), torch.bincount(row, minlength=len(features)).cumsum(0)])
    return start, index, jaccard[row, index]


def _pairwise(items: Tensor) -> Tensor:
    rows = torch.arange(len(items), device=items.device)
    return torch.stack(
        [pair_distances(items, items, row.expand(len(items)), rows, "euclidean") for row in rows]
    )


def _encoded(distances: Tensor, k1: int, k2: int) -> tuple[Tensor, Tensor]:
    """V (N,N) and D' (N,N) of `ops.k_reciprocal`, from all pairwise distances."""
    squares = distances.square()
    farthest = squares.amax(1, keepdim=True)
    scaled = squares / torch.where(farthest == 0, 1, farthest)
    rank = squares.argsort(dim=1, stable=True)

    def mutual(k: int) -> Tensor:
        near = torch.zeros_like(squares, dtype=torch.bool).scatter_(1, rank[:, :k], True)
        return near & near.T

    neighbours, half = mutual(k1 + 1), mutual(round(k1 / 2) + 1)
    # taken[i,c]: whether more than two thirds of `half[c]` lie in `neighbours[i]`.
    shared = neighbours.double() @ half.double()
    taken = neighbours & (3 * shared > 2 * half.sum(1))
    expanded = neighbours | (taken.double() @ half.double() > 0)
    weights = torch.where(expanded, torch.exp(-scaled), 0)
    # An item with more than k1 duplicates may have an empty set: it may be missing from the nearest
    # neighbors of each of its own neighbors. Its row of weights stays zero.
    total = weights.sum(1, keepdim=True)
    weights /= torch.where(total == 0, 1, total)
    if k2 > 1:
        weights = weights[rank[:, :k2]].mean(1)
    return weights, scaled


def _jaccard(a: Tensor, b: Tensor) -> Tensor:
    overlap = torch.stack([torch.minimum(row, b).sum(1) for row in a])
    return 1 - overlap / (2 - overlap)
