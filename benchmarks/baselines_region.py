"""Baselines of K spatial attentions with their overlap, without fused kernels."""

import torch
from torch import Tensor


def naive(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 2, 3 and 9 as written: for each region, weight the map and sum it."""
    weights = logits.softmax(-1)
    cells = x.flatten(3)
    features = torch.stack([(weights[:, :, k, None] * cells).sum(3) for k in range(logits.shape[2])], 2)
    return features, _overlap(weights)


def matmul(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The fastest eager form: the weighted sums as one batched matrix product."""
    weights = logits.softmax(-1)
    return weights @ x.flatten(3).mT, _overlap(weights)


def _overlap(weights: Tensor) -> Tensor:
    root = weights.sqrt()
    identity = torch.eye(weights.shape[2], dtype=weights.dtype, device=weights.device)
    return (root @ root.mT - identity).square().sum((2, 3))
