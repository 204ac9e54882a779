"""Helpers of all CUDA ops: the current stream, and rows for the matrix products."""

from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends.addresses import address, rows


def queue(x: Tensor) -> tuple[int, int]:
    """The tensor's device and torch's current stream on it, for a launch."""
    if not x.is_cuda:  # tests: the kernels are built for the host
        return 0, 0
    return x.get_device(), torch.cuda.current_stream(x.device).cuda_stream


class Operand(NamedTuple):
    """Rows (n,D) for products on tensor cores, as the kernels take them (csrc/cuda/kernels.h).

    Attributes:
        values: the rows, or pairs of float16 numbers.
        factor: (n,), the product of two rows is that of the values times both factors.
        square: (n,) squared norms, or zeros for unit rows.
    """

    values: Tensor
    factor: Tensor
    square: Tensor

    @property
    def place(self) -> tuple[int, int, int]:
        """Address, stride and width in bytes."""
        size = self.values.element_size()
        return self.values.data_ptr(), self.values.stride(0) * size, self.values.shape[1] * size


def split_rows(x: Tensor, mean: Tensor | None = None, scale: Tensor | None = None) -> Operand:
    """The rows of x times `scale` minus `mean` as pairs of float16 numbers."""
    n, slices = len(x), ceil(x.shape[1] / 16)
    values = x.new_empty((n, 32 * slices), dtype=torch.float16)
    operand = Operand(values, *x.new_empty((2, n), dtype=torch.float32))
    _split(x, mean, scale, *operand)
    return operand


def halves(x: Tensor) -> Tensor:
    """Rows of bfloat16 or float16 with an address, a stride and a width of multiples of 16 bytes."""
    if x.shape[1] % 8:
        return F.pad(x, (0, -x.shape[1] % 8))
    if x.stride(1) == 1 and x.stride(0) % 8 == 0 and x.stride(0) >= x.shape[1] and x.data_ptr() % 16 == 0:
        return x
    return x.clone(memory_format=torch.contiguous_format)


def squares(x: Tensor) -> Tensor:
    """Squared norms (n,) in float32."""
    square = x.new_empty(len(x), dtype=torch.float32)
    _split(x, None, None, None, None, square)
    return square


def _split(x: Tensor, *others: Tensor | None) -> None:
    _cuda.split_rows(rows(x), *map(address, others), *queue(x))
