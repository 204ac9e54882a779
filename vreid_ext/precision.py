"""The precision of sums: half precision is summed in float32, the others in their own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums of numbers of `dtype`: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def widened(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`value` as sums of numbers of `dtype` (its own) take it; `value` itself where it is so already."""
    wanted = accumulator(dtype or value.dtype)
    return value if value.dtype == wanted else value.to(wanted)


def in_full(function: Callable[..., Any], x: Tensor, *args: Any) -> Any:
    """Call a reference function in the precision of its arguments, as kernels run, whatever autocast says."""
    if x.device.type == "meta":  # has no autocast
        return function(*args)
    with torch.autocast(x.device.type, enabled=False):
        return function(*args)
