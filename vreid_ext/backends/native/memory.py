"""Memory of large gradients, used again.

The C library hands blocks of 32 MiB and more back to the operating system as soon as they are freed, so a
fresh gradient of that size is mapped, zeroed and faulted in page by page at every step, which takes longer
than computing it. The block of the last such gradient to be freed is kept here for the next one; it comes
from NumPy, which asks the system for large pages.
"""

import weakref

import numpy as np
import torch
from torch import Tensor

_LARGE = 32 * 2**20  # the most that glibc's malloc ever keeps (DEFAULT_MMAP_THRESHOLD_MAX)

_kept: list[np.ndarray] = []


def empty_like(x: Tensor) -> Tensor:
    """`torch.empty_like(x)` on the CPU, in kept memory where x is large and a block of its size is there."""
    if x.nbytes < _LARGE:
        return torch.empty_like(x)
    strides = torch.empty_like(x, device="meta").stride()
    block = _take(x.nbytes)
    lent = block[:]
    weakref.finalize(lent, _keep, block).atexit = False
    return torch.from_numpy(lent).view(x.dtype).as_strided(x.shape, strides)


def release() -> None:
    """Hand the kept block back."""
    _kept.clear()


def _take(size: int) -> np.ndarray:
    try:
        block = _kept.pop()
    except IndexError:
        return np.empty(size, np.uint8)
    return block if block.nbytes == size else np.empty(size, np.uint8)


def _keep(block: np.ndarray) -> None:
    """Called when torch frees the tensor that the block was lent to, on whatever thread that happens."""
    _kept[:] = [block]
