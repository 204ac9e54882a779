"""Hand-written CUDA kernels (`vreid_ext._cuda`) for NVIDIA GPUs.

The module is built where nvcc is found and loaded when a CUDA tensor first asks for it.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Where the kernels run. Tests put their build for the host in the place of `vreid_ext._cuda`, and "cpu" here.
DEVICE = "cuda"


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot run on `device` with `dtype`; None if they can."""
    if device.type != DEVICE:
        return f"CUDA kernels need a CUDA device, not {device}"
    if dtype not in DTYPES:
        return f"CUDA kernels take float32, bfloat16 and float16, not {dtype}"
    if (missing := _missing()) is not None:
        return missing
    if DEVICE == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    index = device.index
    if index is None:
        index = torch.cuda.current_device() if DEVICE == "cuda" else 0
    error = _module().unusable(index)
    return None if error is None else _explained(index, *error)


def build_info() -> dict[str, str] | None:
    """Compiler, architectures and CUDA runtime of the kernels; None without the module."""
    info: dict[str, str] | None = None if _missing() is not None else _module().build_info()
    return info


def _explained(index: int, name: str, text: str) -> str:
    """What a CUDA error of a device means for the module as it is built."""
    info = _module().build_info()
    if name == "cudaErrorNoKernelImageForDevice":
        major, minor = torch.cuda.get_device_capability(index)
        return (
            f"vreid_ext._cuda is built for the architectures {info['architectures']}; cuda:{index} is "
            f"{major}{minor}, which `VREID_CUDA=1 VREID_CUDA_ARCHS={major}{minor} pip install .` builds for"
        )
    if name == "cudaErrorInsufficientDriver":
        return (
            f"vreid_ext._cuda needs a driver for CUDA {info['runtime']} or newer; this one is older ({text})"
        )
    return f"vreid_ext._cuda cannot run on cuda:{index}: {name}: {text}"


@cache
def _missing() -> str | None:
    """Why the module cannot be loaded, or None."""
    try:
        _module()
    except ImportError as error:
        return f"vreid_ext._cuda cannot be loaded ({error}); `VREID_CUDA=1 pip install .` builds it"
    return None


def _module() -> Any:
    return import_module("vreid_ext._cuda")
