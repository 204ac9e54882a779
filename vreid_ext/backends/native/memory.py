"""A cache of the memory of large results.

The C library hands large blocks back to the operating system as soon as they are freed, so a fresh result is
mapped, zeroed and faulted in page by page at every step; for a gradient of tens of MB that takes longer than
computing it. The last block of each size to be freed is cached for the next result of that size. Blocks come
from NumPy, which asks the system for large pages, and begin at a cache line. At most `_SIZES` blocks of
`_CAPACITY` bytes in all are cached, the latest freed ones; `vreid_ext.empty_cache()` frees them.
"""

import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

_LARGE = 2**17  # bytes; smaller blocks stay with the C library
_LINE = 64  # bytes
_SIZES = 8
_CAPACITY = 2**30  # bytes

_cached: OrderedDict[int, np.ndarray] = OrderedDict()  # by bytes, the first freed first


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty(shape, dtype=dtype)` on the CPU, in cached memory if a block of its size is cached."""
    size = dtype.itemsize * math.prod(shape)
    if size < _LARGE:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return _lend(size, dtype).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """`torch.empty_like(x)` on the CPU, in cached memory if a block of its size is cached."""
    if x.nbytes < _LARGE:
        return torch.empty_like(x)
    strides = torch.empty_like(x, device="meta").stride()
    return _lend(x.nbytes, x.dtype).as_strided(x.shape, strides)


def empty_cache() -> None:
    """Free the cached blocks."""
    _cached.clear()


class _Lent(np.ndarray):
    """A block that torch uses; it is cached when torch frees the last tensor on it, in any thread."""

    def __del__(self) -> None:
        assert self.base is not None
        _cache(self.base)


def _lend(size: int, dtype: torch.dtype) -> Tensor:
    block = _cached.pop(size, None)
    if block is None:
        block = np.empty(size + _LINE, np.uint8)
        start = -block.ctypes.data % _LINE
        block = block[start : start + size]
    return torch.frombuffer(block.view(_Lent), dtype=dtype)


def _cache(block: np.ndarray) -> None:
    _cached[block.nbytes] = block
    while len(_cached) > _SIZES or sum(list(_cached)) > _CAPACITY:
        try:
            _cached.popitem(last=False)  # one step: other threads cache blocks at the same time
        except KeyError:  # another thread was faster
            break
