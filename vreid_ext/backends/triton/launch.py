"""Helpers for kernel launches."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launch a kernel with fused multiply-adds, regardless of the default of the Triton version."""
    kernel[grid](*args, **options, enable_fp_fusion=True)


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's device the current one, on which Triton launches kernels."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
