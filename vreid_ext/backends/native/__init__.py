"""CPU kernels in C++ (`vreid_ext._native`) for baseline, AVX2 and AVX-512.

The module selects the highest supported instruction set when it is loaded;
`VREID_ISA=baseline|avx2|avx512` selects a lower one. Importing this package raises ValueError if
the variable has another value or this CPU does not support it. The number of threads is torch's
(`torch.set_num_threads`).
"""

from typing import Any

import torch

# Import after torch, so that the kernels share torch's OpenMP runtime instead of loading a second one.
try:
    from vreid_ext import _native
except ImportError as error:
    _missing: str | None = f"vreid_ext._native cannot be loaded ({error}); `pip install .` builds it"
else:
    _missing = None
    _native.build_info()  # selects the instruction set, or raises ValueError

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """The reason why the kernels cannot run on `device` with `dtype`; None if they can."""
    if _missing is not None:
        return _missing
    if device.type != "cpu":
        return f"runs on the CPU, not on {device.type}"
    if dtype not in _DTYPES:
        return f"has no kernels for {dtype}"
    return None


def build_info() -> dict[str, Any] | None:
    """Selected and supported instruction sets, compiler, OpenMP version; None if the module is missing."""
    return None if _missing is not None else _native.build_info()
