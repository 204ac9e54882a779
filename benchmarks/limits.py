"""The memory traffic that no implementation can avoid, as fast as the machine moves it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vreid_ext import _native as native


def one_read(x: Tensor) -> Callable[[], Any]:
    """The limit of forward: every byte of the map read once."""
    if x.device.type == "cuda":
        return lambda: x.sum()
    return lambda: native.read_probe(x.data_ptr(), x.nbytes // 4, torch.get_num_threads())


def two_reads_one_write(x: Tensor, reuse: bool) -> Callable[[], None]:
    """The limit of forward and backward; into memory that is there already, or into a fresh tensor, which
    is what a gradient is and what the operating system must first hand over page by page."""
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
