"""Argument checks shared by the ops. Each message names the argument, what was got and what is wanted."""

from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def floating(name: str, value: Any, shape: str) -> None:
    """`value` is a floating tensor with the axes of `shape`, say "(B,T,H,W)"; the first may be empty."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, wanted a tensor {shape}")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name}: got dtype {value.dtype}, wanted one of {', '.join(map(str, FLOATS))}")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: got layout {value.layout}, wanted a strided tensor {shape}")
    if value.dim() != shape.count(",") + 1:
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, wanted {shape}")
    if 0 in value.shape[1:]:
        raise ValueError(
            f"{name}: got shape {tuple(value.shape)}, wanted no empty axis but the first in {shape}"
        )


def mask(name: str, value: Any, shape: tuple[int, ...], device: torch.device) -> None:
    """`value` is None or a boolean tensor of the given shape on the given device."""
    if value is None:
        return
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: got {got}, wanted None or a bool tensor (B,T)")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, wanted (B,T) = {shape}")
    same_device(name, value, device)


def same_device(name: str, value: Tensor, device: torch.device) -> None:
    if value.device != device:
        raise ValueError(f"{name}: got a tensor on {value.device}, wanted {device} like the first argument")


def row_blocks(name: str, value: Any, rows: int) -> None:
    """`value` is a number of row blocks that divides the map's rows."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: got {type(value).__name__}, wanted an int")
    if value < 1 or rows % value:
        raise ValueError(f"{name}: got {value}, wanted a positive divisor of the map's {rows} rows")


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, wanted one of {allowed}")
