"""Which implementation of an op runs: `reference`, `native` (CPU), `triton`, `cuda` or another package's.

`backends.table` lists the ops and the backends; this file chooses among them.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from vreid_ext import _observers
from vreid_ext._process import settle_fork
from vreid_ext.backends.table import OPS, has, load, names

# Which of the two comes first on a GPU, by op and major compute capability (None: every other); Triton where
# nothing is said. No row of a GPU stands under benchmarks/results yet: this is a prediction. It puts CUDA C++
# first where the arithmetic takes less than launching from Python does, a microsecond or two against ten.
# `benchmarks/gpu_report.py` measures both and prints what the table should say.
_FIRST_ON_GPU: dict[str, dict[int | None, str]] = {
    "attention_map": {None: "cuda"},
    "block_scores": {None: "cuda"},
    "identity_hard": {None: "cuda"},
    "mined_distance": {None: "cuda"},
    "sta_pool": {None: "cuda"},
}


def _check_name(name: str, argument: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected one of {('auto', *names())}, got {type(name).__name__}")
    if name != "auto" and name not in names():
        raise ValueError(f"{argument}: expected one of {('auto', *names())}, got {name!r}")


_default = os.environ.get("VREID_BACKEND", "auto")
_check_name(_default, "VREID_BACKEND")
_setting = ContextVar("vreid_ext_backend", default=_default)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every op in the block on one backend, unless a call names another.

    Precedence: the argument `backend=` of a call, then `use_backend`, then the environment variable
    `VREID_BACKEND`, which is read when vreid_ext is imported. The setting is a context variable: other
    threads and other asyncio tasks keep theirs, and a new thread starts with that of `VREID_BACKEND`.

    Args:
        name: "auto", "reference", "native", "triton", "cuda", or the name of another package's backend.
    """
    _check_name(name, "name")
    token = _setting.set(name)
    try:
        yield
    finally:
        _setting.reset(token)


def choose(
    op: str, requested: str, device: torch.device, dtype: torch.dtype, *, traceable: bool = True
) -> str:
    """The backend that is to run `op`.

    Under a tracer or a function transform "auto" is the reference (`_observers.transformed`), unless the
    reference's Python depends on numbers and is not `traceable`.

    Raises:
        TypeError, ValueError: `requested` is no backend's name.
        RuntimeError: the backend asked for cannot run this op; the message lists every reason.
    """
    settle_fork()
    if not isinstance(requested, str):
        _check_name(requested, "backend")
    requested = _setting.get() if requested == "auto" else requested
    return _choose(op, requested, device, dtype, traceable)


def ops() -> list[str]:
    """Every op, in alphabetical order."""
    return sorted(OPS)


def usable(
    device: str | None = None, dtype: torch.dtype = torch.float32
) -> list[tuple[str, str, str | None]]:
    """One row (op, backend, why not) for every pair; the last entry is None where the backend is usable.

    Without `device`, triton and cuda are asked about the GPU, the other backends about the CPU.
    """
    home = dict.fromkeys(("triton", "cuda"), "cuda")
    return [
        (op, name, reason(op, name, torch.device(device or home.get(name, "cpu")), dtype))
        for op in ops()
        for name in names()
    ]


def empty_cache() -> None:
    """Free the memory of freed results that the CPU kernels cache, 1 GiB at most.

    Eager torch has no such cache on a CPU. For GPU memory see `torch.cuda.empty_cache`.
    """
    # Without the module there is no cache, and importing `native.memory` is not needed for that.
    if (memory := sys.modules.get("vreid_ext.backends.native.memory")) is not None:
        memory.empty_cache()


def build_info() -> dict[str, str]:
    """How the C++ modules were built (compiler, instruction sets, architectures), and Triton's version."""
    facts: dict[str, str] = {}
    for name in ("native", "cuda"):
        built = load(name).build_info() or {"module": "not built"}
        facts |= {f"{name} {key}": str(value) for key, value in built.items()}
    try:
        facts["triton"] = version("triton")
    except PackageNotFoundError:
        facts["triton"] = "not installed"
    return facts


@torch.compiler.assume_constant_result
def _choose(op: str, requested: str, device: torch.device, dtype: torch.dtype, traceable: bool) -> str:
    if traceable and requested == "auto" and _observers.transformed():
        return "reference"
    return _resolve(op, requested, device, dtype)


@cache
def _resolve(op: str, requested: str, device: torch.device, dtype: torch.dtype) -> str:
    _check_name(requested, "backend")
    wanted = _preference(op, device.type) if requested == "auto" else (requested,)
    for name in wanted:
        if reason(op, name, device, dtype) is None:
            return name
    reasons = "\n".join(f"  {name}: {reason(op, name, device, dtype) or 'usable'}" for name in names())
    raise RuntimeError(f"backend={requested!r} cannot run {op} on {device.type} in {dtype}:\n{reasons}")


def _preference(op: str, device: str) -> tuple[str, ...]:
    """What "auto" tries, in this order. Of several kinds of GPU in a machine the current one decides."""
    if device == "cpu":
        return "native", "reference"
    if device != "cuda":
        return ("reference",)
    major = torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else None
    choices = _FIRST_ON_GPU.get(op, {})
    first = choices.get(major, choices.get(None, "triton"))
    return first, "triton" if first == "cuda" else "cuda", "reference"


def reason(op: str, name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a backend cannot run an op on a device with a dtype; None if it can."""
    if not has(name, op):
        return f"it has no kernel for {op}"
    why: str | None = load(name).unavailable(device, dtype)
    return why
