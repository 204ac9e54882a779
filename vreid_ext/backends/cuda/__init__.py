"""CUDA C++ kernels (`vreid_ext._cuda`) for NVIDIA GPUs.

The module is built if nvcc is found. It is loaded at the first use with a CUDA tensor.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Device type of the kernels. Tests replace `vreid_ext._cuda` by a build for the host and set this to "cpu".
DEVICE = "cuda"


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """The reason why the kernels cannot run on `device` with `dtype`; None if they can."""
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
    """Compiler, architectures and CUDA runtime of the kernels; None if the module is missing."""
    info: dict[str, str] | None = None if _missing() is not None else _module().build_info()
    return info


def _explained(index: int, name: str, text: str) -> str:
    """Message for a CUDA error of a device, with the build settings of the module."""
    info = _module().build_info()
    if name == "cudaErrorNoKernelImageForDevice":
        major, minor = torch.cuda.get_device_capability(index)
        return (
            f"vreid_ext._cuda is built for the architectures {info['architectures']}, not for {major}{minor} "
            f"of cuda:{index}; rebuild with `VREID_CUDA=1 VREID_CUDA_ARCHS={major}{minor} pip install .`"
        )
    if name == "cudaErrorInsufficientDriver":
        return (
            f"vreid_ext._cuda needs a driver for CUDA {info['runtime']} or newer; this one is older ({text})"
        )
    return f"vreid_ext._cuda cannot run on cuda:{index}: {name}: {text}"


@cache
def _missing() -> str | None:
    """The reason why the module cannot be loaded, or None."""
    try:
        _module()
    except ImportError as error:
        return f"vreid_ext._cuda cannot be loaded ({error}); `VREID_CUDA=1 pip install .` builds it"
    return None


def _module() -> Any:
    return import_module("..._cuda", __package__)
