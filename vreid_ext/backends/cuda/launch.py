"""What the ops' modules share: where kernels are queued, and rows as the matrix products read them."""

import torch
import torch.nn.functional as F
from torch import Tensor


def queue(x: Tensor) -> tuple[int, int]:
    """Device and stream of a launch: the tensor's device, and torch's current stream there."""
    if not x.is_cuda:  # the kernels' build for the host
        return 0, 0
    return x.get_device(), torch.cuda.current_stream(x.device).cuda_stream


def in_float(x: Tensor) -> Tensor:
    """float32, contiguous and 16-byte aligned, zeros after the last axis up to a multiple of 4 numbers."""
    x = x.float()
    if x.shape[-1] % 4:
        return F.pad(x, (0, -x.shape[-1] % 4))
    x = x.contiguous()
    return x.clone() if x.data_ptr() % 16 else x
