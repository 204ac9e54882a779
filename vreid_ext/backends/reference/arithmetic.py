"""Arithmetic whose gradient stays finite where the textbook form divides by zero."""

import torch
from torch import Tensor


def sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero rather than infinite."""
    positive = x != 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)


def ratio(x: Tensor, total: Tensor, fallback: Tensor | float) -> Tensor:
    """Divide x by the total; where that is zero, give the fallback and no gradient."""
    nonzero = total != 0
    return torch.where(nonzero, x / torch.where(nonzero, total, 1), fallback)
