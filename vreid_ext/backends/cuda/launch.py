"""Helpers of all CUDA ops: the current stream, and float32 rows aligned for the matrix products."""

import torch
import torch.nn.functional as F
from torch import Tensor


def queue(x: Tensor) -> tuple[int, int]:
    """The tensor's device and torch's current stream on it, for a launch."""
    if not x.is_cuda:  # tests: the kernels are built for the host
        return 0, 0
    return x.get_device(), torch.cuda.current_stream(x.device).cuda_stream


def in_float(x: Tensor) -> Tensor:
    """x in float32, contiguous, 16-byte aligned, with the last axis zero-padded to a multiple of 4."""
    x = x.float()
    if x.shape[-1] % 4:
        return F.pad(x, (0, -x.shape[-1] % 4))
    x = x.contiguous()
    return x.clone() if x.data_ptr() % 16 else x
