"""Where kernels are queued."""

import torch
from torch import Tensor


def queue(x: Tensor) -> tuple[int, int]:
    """Device and stream of a launch: the tensor's device, and torch's current stream there."""
    if not x.is_cuda:  # the kernels' build for the host
        return 0, 0
    return x.get_device(), torch.cuda.current_stream(x.device).cuda_stream
