"""The dtype of sums: float32 for half precision, otherwise the dtype of the input."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which values of `dtype` are summed: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def widened(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Convert `value` to the accumulator dtype of `dtype` (default: its own), without a copy if possible."""
    target = accumulator(dtype or value.dtype)
    return value if value.dtype == target else value.to(target)


def in_full(function: Callable[..., Any], x: Tensor, *args: Any) -> Any:
    """Call a reference function with autocast disabled, so it computes in the dtypes of its arguments."""
    if x.device.type == "meta":  # torch.autocast does not support meta
        return function(*args)
    with torch.autocast(x.device.type, enabled=False):
        return function(*args)
