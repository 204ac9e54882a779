"""k-reciprocal re-ranking as published, with dense matrices."""

import torch
from torch import Tensor

from vreid_ext.backends.reference.ranking import check_finite, pair_distances


def k_reciprocal(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> Tensor:
    """Re-ranked distances (Q,G) float64 from features."""
    check_finite(query, gallery, "euclidean")
    items = torch.cat([query, gallery])
    rows = torch.arange(len(items), device=items.device)
    distances = torch.stack(
        [pair_distances(items, items, row.expand(len(items)), rows, "euclidean") for row in rows]
    )
    return k_reciprocal_distances(distances, len(query), k1, k2, lambda_value)


def k_reciprocal_distances(distances: Tensor, queries: int, k1: int, k2: int, lambda_value: float) -> Tensor:
    """Re-ranked distances (Q,G) from all pairwise distances (N,N), queries before gallery items."""
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
    overlap = torch.stack([torch.minimum(row, weights[queries:]).sum(1) for row in weights[:queries]])
    jaccard = 1 - overlap / (2 - overlap)
    return (1 - lambda_value) * jaccard + lambda_value * scaled[:queries, queries:]
