"""Matrix products (csrc/cpu/product.h). Their bits depend only on D, the dtype and the instruction set."""

from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import addresses
from vreid_ext.backends.addresses import DTYPE_CODES, address, contiguous_rows, rows
from vreid_ext.backends.native import memory
from vreid_ext.precision import accumulator

# Rows of a panel. A slice of packed rows must start at a multiple of this number.
PANEL_ROWS = {dtype: _native.panel_rows(DTYPE_CODES[dtype]) for dtype in (torch.float32, torch.float64)}

BLOCK: int = _native.PRODUCT_BLOCK  # terms in a block of a sum


class Panels(NamedTuple):
    """Rows (n,d) packed for products."""

    data: Tensor
    n: int
    d: int

    def description(self) -> addresses.Panels:
        return addresses.Panels(address(self.data), self.n, self.d)


NO_PANELS = addresses.Panels(0, 0, 0)


def packed_size(n: int, d: int, dtype: torch.dtype) -> int:
    """Number of elements of n packed rows of length d, including the padding of the last panel."""
    step = PANEL_ROWS[dtype]
    return -(-n // step) * step * d


def panels(n: int, d: int, dtype: torch.dtype) -> Panels:
    """Uninitialized memory for n packed rows of length d, float32 or float64."""
    return Panels(memory.empty((packed_size(n, d, dtype),), dtype), n, d)


def pack(
    x: Tensor, scale: Tensor | None = None, out: Tensor | None = None, square: Tensor | None = None
) -> Panels:
    """Pack the rows of x (n,d) in the accumulator dtype of x.

    Args:
        scale: (n,), factors of the rows.
        out: output memory of `packed_size(n, d, dtype)` elements.
        square: (n,), output for the squared norms of the packed rows.
    """
    x = contiguous_rows(x)
    n, d = x.shape
    target = panels(n, d, accumulator(x.dtype)) if out is None else Panels(out, n, d)
    _native.pack_rows(rows(x), *map(address, (scale, target.data, square)), torch.get_num_threads())
    return target


def products(x: Panels, y: Panels) -> Tensor:
    """x @ y.T (x.n, y.n)."""
    out = x.data.new_empty(x.n, y.n)
    _native.products(
        DTYPE_CODES[out.dtype], x.description(), y.description(), address(out), y.n, torch.get_num_threads()
    )
    return out
