"""The weighted part metric (STAL, Chen et al., TIP 2019) in plain torch."""

import torch
from torch import Tensor

from vreid_ext.precision import accumulator


def part_distance(q_features: Tensor, q_weights: Tensor, g_features: Tensor, g_weights: Tensor) -> Tensor:
    """Eq. 8 for weights that are normalised already: one part after the other."""
    dtype = accumulator(q_features.dtype)
    total = q_features.new_zeros((len(q_features), len(g_features)), dtype=dtype)
    for r in range(q_features.shape[1]):
        # Differences instead of a matrix product: exact, and of gradient zero at distance zero.
        distance = torch.cdist(
            q_features[:, r].to(dtype),
            g_features[:, r].to(dtype),
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        total = total + q_weights[:, r, None] * g_weights[:, r] * distance
    return total
