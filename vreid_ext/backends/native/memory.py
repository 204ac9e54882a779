"""A cache of memory blocks for large results.

The C library returns large blocks to the operating system when they are freed. Every new result is then
mapped, zeroed and faulted in page by page, which takes longer than the computation of a gradient of tens of
MB. This module therefore caches the most recently freed block of each size for the next result of that size.
Blocks are allocated by NumPy, which requests huge pages, and are aligned to cache lines. At most `_SIZES`
blocks and `_CAPACITY` bytes are cached; the oldest are evicted. `vreid_ext.empty_cache()` frees them all.
"""

import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

_LARGE = 2**17  # bytes; smaller blocks are allocated by torch
_LINE = 64  # bytes
_SIZES = 8
_CAPACITY = 2**30  # bytes

_cached: OrderedDict[int, np.ndarray] = OrderedDict()  # size in bytes -> block, the oldest first


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`torch.empty(shape, dtype=dtype)` on the CPU, in a cached block if one of the same size exists."""
    size = dtype.itemsize * math.prod(shape)
    if size < _LARGE:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return _lend(size, dtype).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """`torch.empty_like(x)` on the CPU, in a cached block if one of the same size exists."""
    if x.nbytes < _LARGE:
        return torch.empty_like(x)
    strides = torch.empty_like(x, device="meta").stride()
    return _lend(x.nbytes, x.dtype).as_strided(x.shape, strides)


def empty_cache() -> None:
    """Free the cached blocks."""
    _cached.clear()


class _Lent(np.ndarray):
    """A block in use by torch. It is cached when torch frees the last tensor on it, in any thread."""

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
            _cached.popitem(last=False)  # atomic: other threads may cache blocks at the same time
        except KeyError:  # another thread has emptied the cache
            break
