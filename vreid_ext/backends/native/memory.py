"""A cache of memory blocks for large results.

The C library returns large blocks to the operating system when they are freed. Every new result is then
mapped, zeroed and faulted in page by page, which takes longer than the computation of a gradient of tens of
MB. This module therefore caches the most recently freed blocks for the next results of their sizes. Blocks
are allocated by NumPy, which requests huge pages, and are aligned to cache lines. At most `_BLOCKS` blocks
and `_CAPACITY` bytes are cached; the oldest are evicted. `vreid_ext.empty_cache()` frees them all.
"""

import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

_LARGE = 2**17  # bytes; smaller blocks are allocated by torch
_LINE = 64  # bytes
_BLOCKS = 16
_CAPACITY = 2**30  # bytes

_cached: OrderedDict[int, np.ndarray] = OrderedDict()  # id of a block -> block, the oldest first


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
    block = _cached_block(size)
    if block is None:
        block = np.empty(size + _LINE, np.uint8)
        start = -block.ctypes.data % _LINE
        block = block[start : start + size]
    return torch.frombuffer(block.view(_Lent), dtype=dtype)


# Other threads may cache and take blocks at the same time. Each operation of the dict is atomic; a block that
# another thread has taken is no longer in it.
def _cached_block(size: int) -> np.ndarray | None:
    for key, block in reversed(list(_cached.items())):
        if block.nbytes == size and _cached.pop(key, None) is block:
            return block
    return None


def _cache(block: np.ndarray) -> None:
    _cached[id(block)] = block
    while len(_cached) > _BLOCKS or sum(each.nbytes for each in list(_cached.values())) > _CAPACITY:
        try:
            _cached.popitem(last=False)
        except KeyError:  # another thread has emptied the cache
            break
