"""The weighted part metric (STAL, Chen et al., TIP 2019) in plain torch."""

import torch
from torch import Tensor

from vreid_ext import _observers
from vreid_ext.precision import accumulator


def part_distance(q_features: Tensor, q_weights: Tensor, g_features: Tensor, g_weights: Tensor) -> Tensor:
    """Eq. 8 for normalized weights, one part after another."""
    dtype = accumulator(q_features.dtype)
    total = q_features.new_zeros((q_features.shape[0], g_features.shape[0]), dtype=dtype)
    for r in range(q_features.shape[1]):
        distance = _distances(q_features[:, r].to(dtype), g_features[:, r].to(dtype))
        total = total + q_weights[:, r, None] * g_weights[:, r] * distance
    return total


def _distances(q: Tensor, g: Tensor) -> Tensor:
    """(Q,G) from differences instead of a matrix product: exact, with gradient zero at distance zero."""
    if _observers.transforming() or _observers.forward_mode():
        # cdist has no forward-mode derivative, and `torch.func.jacrev` of it is wrong. Needs O(Q G D) memory.
        return torch.linalg.vector_norm(q[:, None] - g, dim=2)
    return torch.cdist(q, g, compute_mode="donot_use_mm_for_euclid_dist")
