"""Triton kernels for NVIDIA GPUs (compute capability 8.0 and newer).

Importing this package does not import Triton; importing one of its family modules does.
"""

import importlib.util
import os

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """The reason why the kernels cannot run on `device` with `dtype`; None if they can.

    A CPU is supported by Triton's interpreter (`TRITON_INTERPRET=1`, set before the kernels are first used),
    for float32 and float16. The interpreter computes wrong bfloat16 sums.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    interpreted = _interpreted()
    if device.type != "cuda" and not (device.type == "cpu" and interpreted):
        return f"Triton kernels need a CUDA device, or a CPU and TRITON_INTERPRET=1; the device is {device}"
    if dtype not in DTYPES:
        return f"Triton kernels take float32, bfloat16 and float16, not {dtype}"
    if interpreted and dtype == torch.bfloat16:
        return "Triton's interpreter computes wrong bfloat16 sums"
    if device.type == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if device.type == "cuda" and not interpreted:
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            return f"Triton kernels need compute capability 8.0, {device} has {capability[0]}.{capability[1]}"
    return None


def _interpreted() -> bool:
    """Whether the kernels are interpreted. The import of their module decides this, so read it from there."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return False
    from vreid_ext.backends.triton import sta_kernels as kernels

    return kernels.INTERPRETED
