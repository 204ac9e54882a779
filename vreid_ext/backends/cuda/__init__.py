"""Hand-written CUDA kernels (`vreid_ext._cuda`), built where nvcc is found."""

import torch


def unavailable(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot run `op`, or None."""
    return "vreid_ext._cuda was not built"
