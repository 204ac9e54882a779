"""The precision that ops compute in."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def in_full(function: Callable[..., Any], x: Tensor, *args: Any) -> Any:
    """Call a reference function in the precision of its arguments, as kernels run, whatever autocast says."""
    with torch.autocast(x.device.type, enabled=False):
        return function(*args)
