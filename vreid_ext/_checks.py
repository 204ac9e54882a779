"""Argument checks of all public functions. Each message names the argument, what was expected and got."""

import math
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vreid_ext import _observers

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
METRICS = ("euclidean", "squared", "cosine")  # distances of mining


def floating(name: str, value: Any, shape: str) -> None:
    """`value` is a floating tensor with the axes of `shape`, say "(B,T,H,W)"; the first may be empty."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor {shape}, got {type(value).__name__}")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name}: expected dtype one of {', '.join(map(str, FLOATS))}, got {value.dtype}")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: expected a strided tensor {shape}, got layout {value.layout}")
    if value.dim() != shape.count(",") + 1:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
    if 0 in value.shape[1:]:
        raise ValueError(
            f"{name}: expected no empty axis but the first in {shape}, got shape {tuple(value.shape)}"
        )


def labelled_rows(name: str, rows: Any, labels_name: str, labels: Any, *, empty: bool = True) -> None:
    """`rows` is a floating (n,D) and `labels` an integer (n,) tensor on one device. n may be 0 if `empty`."""
    floating(name, rows, "(n,D)")
    if not len(rows) and not empty:
        raise ValueError(f"{name}: expected shape (n,D) with n at least 1, got {tuple(rows.shape)}")
    if not isinstance(labels, Tensor):
        raise TypeError(f"{labels_name}: expected a tensor (n,), got {type(labels).__name__}")
    if labels.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{labels_name}: expected dtype int64 or int32, got {labels.dtype}")
    if labels.shape != rows.shape[:1]:
        raise ValueError(
            f"{labels_name}: expected shape ({rows.shape[0]},) as {name} has rows, got {tuple(labels.shape)}"
        )
    same_device(labels_name, labels, rows.device)


def mask(name: str, value: Any, shape: tuple[int, ...], device: torch.device) -> None:
    """`value` is None or a boolean tensor of the given shape on the given device."""
    if value is None:
        return
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: expected None or a bool tensor (B,T), got {got}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name}: expected shape (B,T) = {shape}, got {tuple(value.shape)}")
    same_device(name, value, device)


def same_device(name: str, value: Tensor, device: torch.device) -> None:
    """`value` is a strided tensor on the given device."""
    if value.layout != torch.strided:
        raise TypeError(f"{name}: expected a strided tensor, got layout {value.layout}")
    if value.device != device:
        raise ValueError(f"{name}: expected {device} like the first argument, got a tensor on {value.device}")


def integer(name: str, value: Any, least: int) -> int:
    """`value`, an integer of 64 bits, `least` or more."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    number = int(value)
    if not least <= number < 2**63:
        raise ValueError(f"{name}: expected an int of at least {least} that 64 bits hold, got {value}")
    return number


def real(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """`value`, a finite number from `least` to `most`."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    given: Any = value
    # Compared before the conversion, which overflows for a huge int.
    number = float(value) if -sys.float_info.max <= given <= sys.float_info.max else math.nan
    if not least <= number <= most:
        bounds = (
            ""
            if least == -math.inf
            else f" from {least} on"
            if most == math.inf
            else f" from {least} to {most}"
        )
        raise ValueError(f"{name}: expected a finite number{bounds}, got {value}")
    return number


def array(name: str, value: Any) -> Tensor:
    """A tensor of numbers, from a tensor, an array of any strides and byte order, or nested lists."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise TypeError(f"{name}: expected a strided tensor, got layout {value.layout}")
        return value
    try:
        value = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # such as lists of different lengths
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(value).__name__}: {error}"
        ) from error
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected an array of numbers of at most 64 bits, got one of {value.dtype}")
    if value.dtype.kind == "u" and value.dtype.itemsize == 8 and value.size and value.max() >= 2**63:
        raise ValueError(f"{name}: expected integers below 2^63, got {value.max()}")
    value = value.astype(value.dtype.newbyteorder("="), copy=any(stride < 0 for stride in value.strides))
    return torch.from_numpy(value)


def sizes(value: Any) -> dict[str, int]:
    """The numbers of classes of attributes, by name: at least one attribute."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f"sizes: expected a mapping of names to numbers of classes, got {type(value).__name__}"
        )
    if not value:
        raise ValueError("sizes: expected at least one attribute, got none")
    return {name: integer(f"sizes[{name!r}]", size, 1) for name, size in value.items()}


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")


def margin(value: Any) -> float | Literal["soft"]:
    """A finite number of at least 0, or "soft"."""
    if isinstance(value, str) and value == "soft":
        return "soft"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"margin: expected a number or 'soft', got {value!r}")
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"margin: expected a finite number >= 0 or 'soft', got {value}")
    return float(value)


def readable(value: Tensor) -> bool:
    """Whether Python may branch on the numbers: they exist, and no tracer, transform or mode looks on."""
    return not _observers.symbolic() and held(value)


def seen(value: Tensor) -> bool:
    """Whether the numbers can be looked at without a wait for the device."""
    return value.device.type == "cpu" and readable(value)


def has_numbers(name: str, value: Tensor) -> None:
    if value.device.type == "meta":
        raise ValueError(f"{name}: expected a tensor that holds numbers, got one on meta")


def held(value: Tensor) -> bool:
    """Whether the tensor's own memory holds its numbers; a FakeTensor or a DTensor has rules of its own."""
    return type(value).__torch_dispatch__ is Tensor.__torch_dispatch__


def within(name: str, value: Tensor, least: int, end: int) -> None:
    """Integers from `least` to `end` - 1, where they can be looked at."""
    if not seen(value) or not value.numel():
        return
    low, high = (int(each) for each in value.aminmax())
    if low < least or high >= end:
        got = low if low < least else high
        raise ValueError(f"{name}: expected {least} to {end - 1}, got {got}")


def row_blocks(name: str, value: Any, rows: int) -> None:
    """`value` is a number of row blocks that divides the map's rows."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < 1 or rows % value:
        raise ValueError(f"{name}: expected a positive divisor of the map's {rows} rows, got {value}")


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {allowed}, got {type(value).__name__}")
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {allowed}, got {value!r}")
    return value
