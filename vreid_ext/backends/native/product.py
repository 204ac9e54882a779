"""Matrix products whose bits depend on D, the dtype and the instruction set alone (csrc/cpu/product.h)."""

from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import addresses
from vreid_ext.backends.addresses import DTYPE_CODES, address, adjacent, rows
from vreid_ext.backends.native import memory
from vreid_ext.precision import accumulator

# Rows of a panel. A slice of packed rows starts at a multiple of it.
PANEL_ROWS = {dtype: _native.panel_rows(DTYPE_CODES[dtype]) for dtype in (torch.float32, torch.float64)}


class Panels(NamedTuple):
    """Rows (n,d) packed for products."""

    data: Tensor
    n: int
    d: int

    def description(self) -> addresses.Panels:
        return addresses.Panels(address(self.data), self.n, self.d)


NO_PANELS = addresses.Panels(0, 0, 0)


def packed_size(n: int, d: int, dtype: torch.dtype) -> int:
    """How many numbers n packed rows of d are, with those that fill up the last panel."""
    step = PANEL_ROWS[dtype]
    return -(-n // step) * step * d


def panels(n: int, d: int, dtype: torch.dtype) -> Panels:
    """Room for n packed rows of d numbers, float32 or float64."""
    return Panels(memory.empty((packed_size(n, d, dtype),), dtype), n, d)


def pack(
    x: Tensor, scale: Tensor | None = None, out: Tensor | None = None, square: Tensor | None = None
) -> Panels:
    """The rows of x (n,d), each multiplied by its number of `scale` (n,), in the precision of their sums.

    Args:
        out: memory of `packed_size(n, d, dtype)` numbers to write to.
        square: (n,), receives the squared norms of the packed rows.
    """
    x = adjacent(x)
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
