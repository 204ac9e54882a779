"""Memory of large results, used again.

The C library hands large blocks back to the operating system as soon as they are freed, so a fresh result is
mapped, zeroed and faulted in page by page at every step; for a gradient of tens of MB that takes longer than
computing it. The last block of each size to be freed is kept here for the next result of that size. Blocks
come from NumPy, which asks the system for large pages.
"""

import weakref

import numpy as np
import torch
from torch import Tensor

_LARGE = 2**20  # bytes; smaller blocks stay with the C library
_SIZES = 4  # sizes remembered at a time

_kept: dict[int, np.ndarray] = {}


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty(shape, dtype=dtype)` on the CPU, in kept memory where a block of its size is there."""
    size = dtype.itemsize * torch.Size(shape).numel()
    if size < _LARGE:
        return torch.empty(shape, dtype=dtype)
    return _lend(size).view(dtype).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """`torch.empty_like(x)` on the CPU, in kept memory where a block of its size is there."""
    if x.nbytes < _LARGE:
        return torch.empty_like(x)
    strides = torch.empty_like(x, device="meta").stride()
    return _lend(x.nbytes).view(x.dtype).as_strided(x.shape, strides)


def release() -> None:
    """Hand the kept blocks back."""
    _kept.clear()


def _lend(size: int) -> Tensor:
    block = _kept.pop(size, None)
    if block is None:
        block = np.empty(size, np.uint8)
    lent = block[:]
    weakref.finalize(lent, _keep, block).atexit = False
    return torch.from_numpy(lent)


def _keep(block: np.ndarray) -> None:
    """Called when torch frees the tensor that the block was lent to, on whatever thread that happens."""
    _kept[block.nbytes] = block
    while len(_kept) > _SIZES:
        _kept.pop(next(iter(_kept)), None)
