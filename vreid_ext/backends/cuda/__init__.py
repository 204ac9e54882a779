"""Hand-written CUDA kernels (`vreid_ext._cuda`): STA pooling, forward and backward.

The module is built where nvcc is found and loaded when a CUDA tensor first asks for it.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch

_OPS = ("sta_pool",)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def unavailable(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot run `op` on `device` with `dtype`; None if it can."""
    if op not in _OPS:
        return f"there is no CUDA kernel for {op}"
    if device.type != "cuda":
        return f"CUDA kernels need a CUDA device, not {device}"
    if dtype not in _DTYPES:
        return f"CUDA kernels take float32, bfloat16 and float16, not {dtype}"
    if (missing := _missing()) is not None:
        return missing
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    index = torch.cuda.current_device() if device.index is None else device.index
    reason = _module().unusable(index)
    return None if reason is None else f"vreid_ext._cuda cannot run on cuda:{index}: {reason}"


def build_info() -> dict[str, str] | None:
    """Compiler, architectures and CUDA runtime of the kernels; None without the module."""
    info: dict[str, str] | None = None if _missing() is not None else _module().build_info()
    return info


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


def __getattr__(name: str) -> Any:
    if name.removesuffix("_backward") not in _OPS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vreid_ext.backends.cuda import sta

    globals()[name] = getattr(sta, name)
    return globals()[name]
