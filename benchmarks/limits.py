"""Lower bounds of the time: the unavoidable memory traffic at the bandwidth of the machine."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vreid_ext import _native as native


def one_read(x: Tensor) -> Callable[[], Any]:
    """The limit of the forward pass: one read of the map."""
    if x.device.type == "cuda":
        return lambda: x.sum()
    return lambda: native.read_probe(x.data_ptr(), x.nbytes // 4, torch.get_num_threads())


def two_reads_one_write(x: Tensor, reuse: bool) -> Callable[[], None]:
    """The limit of forward and backward. With `reuse` the write goes to existing memory, otherwise to a new
    tensor. A gradient is a new tensor, for which the operating system must first map pages."""
    target = torch.empty_like(x)
    read = one_read(x)

    def run() -> None:
        read()
        y = target if reuse else torch.empty_like(x)
        if x.device.type == "cuda":
            y.copy_(x)
        else:
            native.copy_probe(x.data_ptr(), y.data_ptr(), x.nbytes // 4, torch.get_num_threads())

    return run
