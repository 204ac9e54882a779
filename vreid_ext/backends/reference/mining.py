"""Hardest pairs and their distances in plain torch, with the full distance matrix."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.backends.errors import finite_squares
from vreid_ext.precision import widened


def batch_hard(
    x: Tensor, labels: Tensor, ref: Tensor | None, ref_labels: Tensor | None, metric: str
) -> tuple[Tensor, Tensor]:
    """Farthest positive and nearest negative of each row: distance (2,n) and index (2,n)."""
    if len(x):
        finite_squares("embeddings", x)
        if ref is not None:
            finite_squares("ref", ref)
    same = labels[:, None] == (labels if ref_labels is None else ref_labels)
    positive = same & ~_self(x) if ref is None else same
    distance = _distances(x.detach(), (x if ref is None else ref).detach(), metric)
    index = torch.stack([_farthest(distance, positive), _farthest(-distance, ~same)])
    return mined_distance(x, ref, index, metric), index


def batch_hard_triplet(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    metric: str,
    margin: float,
    soft: bool,
) -> Tensor:
    """Mean of [margin + positive - negative]_+, or softplus(positive - negative), over the valid anchors."""
    (positive, negative), index = batch_hard(x, labels, ref, ref_labels, metric)
    gap, valid = positive - negative, (index >= 0).all(0)
    # Above its threshold torch's softplus is the identity. The default, 20, has an error of 2e-9.
    loss = F.softplus(gap, threshold=40) if soft else F.relu(margin + gap)
    return torch.where(valid, loss, 0).sum() / valid.sum().clamp(min=1)


def identity_hard(x: Tensor, labels: Tensor, metric: str, include_self: bool) -> Tensor:
    """Farthest and nearest row of the same label: index (2,n)."""
    candidates = labels[:, None] == labels
    if not include_self:
        candidates = candidates & ~_self(x)
    distance = _distances(x, x, metric)
    return torch.stack([_farthest(distance, candidates), _farthest(-distance, candidates)])


def mined_distance(x: Tensor, ref: Tensor | None, index: Tensor, metric: str) -> Tensor:
    """Distance (M,n) of row i of x to row index[m,i] of ref; zero where the index is -1."""
    candidates = x if ref is None else ref
    _checks.within("index", index, -1, len(candidates))
    if not len(candidates):  # every index is -1; the result stays connected to both inputs
        return torch.where(index < 0, 0, widened(x).sum(1) + widened(candidates).sum())
    first, second = _rows(x, metric), _rows(candidates, metric)[index.clamp(min=0)]
    difference = torch.where(index[..., None] < 0, 0, first - second)
    if metric == "euclidean":
        distance = torch.linalg.vector_norm(difference, dim=2)  # the gradient at zero is zero
    else:
        distance = difference.square().sum(2)
    if metric == "cosine":
        zero = (first == 0).all(1) | (second == 0).all(2)
        distance = torch.where(zero, 1, distance / 2)
    return torch.where(index < 0, 0, distance)


def _rows(x: Tensor, metric: str) -> Tensor:
    """Rows in float32 or wider, for "cosine" L2-normalized. A row whose squares underflow becomes zero."""
    x = widened(x)
    if metric != "cosine":
        return x
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    zero = norm < torch.finfo(x.dtype).smallest_normal ** 0.5
    unit = torch.where(zero, 0, x / torch.where(zero, 1, norm))
    return unit * torch.where(norm.isinf(), torch.nan, torch.ones_like(norm))


def _distances(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """(n,m) float64 values that are ordered like the distances of the metric. They are computed from
    differences, so they are precise, symmetric and equal for equal rows, unlike those of a matrix product.
    """
    x, y = _rows(x, metric).double(), _rows(y, metric).double()
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    if metric != "cosine":
        return distance
    zero = (x == 0).all(1)[:, None] | (y == 0).all(1)
    return torch.where(zero, 2**0.5, distance)  # sqrt(2) between unit vectors: a cosine distance of 1


def _farthest(distance: Tensor, candidates: Tensor) -> Tensor:
    """Column of the largest distance among the candidates of each row; -1 if there is no candidate."""
    if not distance.numel():
        return torch.full(distance.shape[:1], -1, dtype=torch.int64, device=distance.device)
    index = distance.masked_fill(~candidates, -torch.inf).argmax(1)
    return torch.where(candidates.any(1), index, -1)


def _self(x: Tensor) -> Tensor:
    return torch.eye(x.shape[0], dtype=torch.bool, device=x.device)
