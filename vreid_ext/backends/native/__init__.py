"""CPU kernels in C++ (`vreid_ext._native`): baseline, AVX2 and AVX-512, chosen when the module is loaded.

`VREID_ISA=baseline|avx2|avx512` forces a lower instruction set. Importing this package raises ValueError if
the variable has another value or names one that this machine lacks. Threads: `torch.set_num_threads`.
"""

from typing import Any

import torch

# After torch, so that the kernels share torch's OpenMP runtime instead of loading a second.
try:
    from vreid_ext import _native
except ImportError as error:
    _missing: str | None = f"vreid_ext._native cannot be loaded ({error}); `pip install .` builds it"
else:
    _missing = None
    _native.build_info()  # chooses the instruction set

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot run on `device` with `dtype`; None if they can."""
    if _missing is not None:
        return _missing
    if device.type != "cpu":
        return f"runs on the CPU, not on {device.type}"
    if dtype not in _DTYPES:
        return f"has no kernels for {dtype}"
    return None


def build_info() -> dict[str, Any] | None:
    """Instruction set in use and usable ones, compiler and OpenMP version; None without the module."""
    return None if _missing is not None else _native.build_info()
