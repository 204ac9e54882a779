"""Arithmetic with gradients that stay finite where the textbook formula divides by zero."""

import torch
from torch import Tensor


def sqrt(x: Tensor) -> Tensor:
    """Square root with gradient zero (not infinity) at zero."""
    positive = x != 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)


def ratio(x: Tensor, total: Tensor, fallback: Tensor | float) -> Tensor:
    """x / total; where total is zero, the fallback, with gradient zero for x."""
    nonzero = total != 0
    return torch.where(nonzero, x / torch.where(nonzero, total, 1), fallback)
