"""Argument checks of all public functions. Messages have the form `name: expected X, got Y`."""

import math
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import Tensor

from vreid_ext import _observers

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
METRICS = ("euclidean", "squared", "cosine")  # of the mining ops


def floating(name: str, value: Any, shape: str) -> None:
    """Check a floating-point tensor with the axes of `shape`, e.g. "(B,T,H,W)". Only axis 0 may be empty."""
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
            f"{name}: expected no empty axis except the first in {shape}, got shape {tuple(value.shape)}"
        )


def labelled_rows(name: str, rows: Any, labels_name: str, labels: Any, *, empty: bool = True) -> None:
    """Check `rows`, floating-point (n,D), and `labels`, integer (n,) on the same device.

    Args:
        empty: whether n may be 0.
    """
    floating(name, rows, "(n,D)")
    if not len(rows) and not empty:
        raise ValueError(f"{name}: expected shape (n,D) with n at least 1, got {tuple(rows.shape)}")
    if not isinstance(labels, Tensor):
        raise TypeError(f"{labels_name}: expected a tensor (n,), got {type(labels).__name__}")
    if labels.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{labels_name}: expected dtype int64 or int32, got {labels.dtype}")
    if labels.shape != rows.shape[:1]:
        raise ValueError(
            f"{labels_name}: expected shape ({rows.shape[0]},), one label for each row of {name}, "
            f"got {tuple(labels.shape)}"
        )
    same_device(labels_name, labels, rows.device)


def mask(name: str, value: Any, shape: tuple[int, ...], device: torch.device, axes: str = "(B,T)") -> None:
    """Check None or a bool tensor with the given shape and device; `axes` names the axes in messages."""
    if value is None:
        return
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: expected None or a bool tensor {axes}, got {got}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name}: expected shape {axes} = {shape}, got {tuple(value.shape)}")
    same_device(name, value, device)


def same_device(name: str, value: Tensor, device: torch.device) -> None:
    """Check a strided tensor on the given device."""
    if value.layout != torch.strided:
        raise TypeError(f"{name}: expected a strided tensor, got layout {value.layout}")
    if value.device != device:
        raise ValueError(f"{name}: expected device {device} of the first argument, got {value.device}")


def integer(name: str, value: Any, least: int) -> int:
    """`value` as an int, checked to be >= `least` and to fit into 64 bits."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    number = int(value)
    if not least <= number < 2**63:
        raise ValueError(f"{name}: expected an int >= {least} that fits into 64 bits, got {value}")
    return number


def real(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """`value` as a float, checked to be finite and between `least` and `most` (inclusive)."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    given: Any = value
    # Compare before the conversion: float() of a huge int raises OverflowError.
    number = float(value) if -sys.float_info.max <= given <= sys.float_info.max else math.nan
    if not least <= number <= most:
        bounds = (
            "" if least == -math.inf else f" >= {least}" if most == math.inf else f" from {least} to {most}"
        )
        raise ValueError(f"{name}: expected a finite number{bounds}, got {value}")
    return number


def array(name: str, value: Any) -> Tensor:
    """Convert a tensor, nested lists, or an array with any strides and byte order to a tensor."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise TypeError(f"{name}: expected a strided tensor, got layout {value.layout}")
        return value
    import numpy as np  # here, since a tensor does not need it

    try:
        value = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # e.g. lists of different lengths
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(value).__name__}: {error}"
        ) from error
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected an array of numbers of at most 64 bits, got dtype {value.dtype}")
    if value.dtype.kind == "u" and value.dtype.itemsize == 8 and value.size and value.max() >= 2**63:
        raise ValueError(f"{name}: expected integers below 2^63, got {value.max()}")
    value = value.astype(value.dtype.newbyteorder("="), copy=any(stride < 0 for stride in value.strides))
    return torch.from_numpy(value)


def sizes(value: Any) -> dict[str, int]:
    """Check a mapping from attribute names to numbers of classes, with at least one attribute."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f"sizes: expected a mapping from names to numbers of classes, got {type(value).__name__}"
        )
    if not value:
        raise ValueError("sizes: expected at least one attribute, got none")
    return {name: integer(f"sizes[{name!r}]", size, 1) for name, size in value.items()}


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")


def margin(value: Any) -> float | Literal["soft"]:
    """Check a finite number >= 0 or "soft"."""
    if isinstance(value, str) and value == "soft":
        return "soft"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"margin: expected a number or 'soft', got {value!r}")
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"margin: expected a finite number >= 0 or 'soft', got {value}")
    return float(value)


def readable(value: Tensor) -> bool:
    """Whether Python may branch on the values. False without data or under a tracer, transform or mode."""
    return not _observers.symbolic() and held(value)


def seen(value: Tensor) -> bool:
    """Whether the values can be read without device synchronization."""
    return value.device.type == "cpu" and readable(value)


def has_numbers(name: str, value: Tensor) -> None:
    if value.device.type == "meta":
        raise ValueError(f"{name}: expected a tensor with data, got a meta tensor")


def held(value: Tensor) -> bool:
    """Whether the tensor's own storage holds its values; False for FakeTensor, DTensor and the like."""
    return type(value).__torch_dispatch__ is Tensor.__torch_dispatch__


def within(name: str, value: Tensor, least: int, end: int) -> None:
    """Check integers from `least` to `end` - 1. Skipped where reading them would synchronize."""
    if not seen(value) or not value.numel():
        return
    low, high = (int(each) for each in value.aminmax())
    if low < least or high >= end:
        got = low if low < least else high
        raise ValueError(f"{name}: expected {least} to {end - 1}, got {got}")


def row_blocks(name: str, value: Any, rows: int) -> None:
    """Check a number of row blocks, which must divide the number of rows of the map."""
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
