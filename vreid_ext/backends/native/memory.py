"""Memory of large results, used again.

The C library hands large blocks back to the operating system as soon as they are freed, so a fresh result is
mapped, zeroed and faulted in page by page at every step; for a gradient of tens of MB that takes longer than
computing it. The last block of each size to be freed is kept here for the next result of that size. Blocks
come from NumPy, which asks the system for large pages, and begin with a cache line.
"""

import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

_LARGE = 2**17  # bytes; smaller blocks stay with the C library
_LINE = 64  # bytes
_SIZES = 8  # sizes remembered at a time

_kept: OrderedDict[int, np.ndarray] = OrderedDict()  # by bytes, the first freed first


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty(shape, dtype=dtype)` on the CPU, in kept memory where a block of its size is there."""
    size = dtype.itemsize * math.prod(shape)
    if size < _LARGE:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return _lend(size, dtype).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """`torch.empty_like(x)` on the CPU, in kept memory where a block of its size is there."""
    if x.nbytes < _LARGE:
        return torch.empty_like(x)
    strides = torch.empty_like(x, device="meta").stride()
    return _lend(x.nbytes, x.dtype).as_strided(x.shape, strides)


def release() -> None:
    """Hand the kept blocks back."""
    _kept.clear()


class _Lent(np.ndarray):
    """A block that torch uses; it comes back when torch frees the last tensor on it, on whatever thread."""

    def __del__(self) -> None:
        assert self.base is not None
        _keep(self.base)


def _lend(size: int, dtype: torch.dtype) -> Tensor:
    block = _kept.pop(size, None)
    if block is None:
        block = np.empty(size + _LINE, np.uint8)
        start = -block.ctypes.data % _LINE
        block = block[start : start + size]
    return torch.frombuffer(block.view(_Lent), dtype=dtype)


def _keep(block: np.ndarray) -> None:
    _kept[block.nbytes] = block
    while len(_kept) > _SIZES:
        _kept.popitem(last=False)  # in one step: other threads keep blocks at the same time
