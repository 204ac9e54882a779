"""Feature maps and masks as arguments of the kernels."""

import torch
from torch import Tensor


def mask(valid: Tensor | None) -> Tensor | None:
    return None if valid is None else valid.contiguous().view(torch.uint8)


def walk(x: Tensor) -> tuple[int, ...]:
    """Width and strides of a map (B,T,C,H,W). For width 1, the stride between cells is that of the rows."""
    *outer, stride_h, stride_w = x.stride()
    return x.shape[4], *outer, stride_h, stride_w if x.shape[4] > 1 else stride_h


def flat(*maps: Tensor) -> bool:
    """Whether the cells of each map have a constant stride."""
    return all(x.shape[3] == 1 or x.shape[4] == 1 or x.stride(3) == x.shape[4] * x.stride(4) for x in maps)
