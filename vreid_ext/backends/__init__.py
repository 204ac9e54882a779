"""Selects the backend of an op: `reference`, `native` (CPU), `triton`, `cuda` or one of another package.

`backends.table` lists the ops and the backends; this module selects one of them.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from vreid_ext import _observers
from vreid_ext._process import settle_fork
from vreid_ext.backends.table import OPS, function, has, load, names

# Preferred GPU backend of an op, by major compute capability (None: all others). The default is Triton.
# benchmarks/results has no GPU rows yet, so this table is a prediction: CUDA C++ is preferred for ops whose
# arithmetic takes less time than a kernel launch. A launch takes one or two microseconds from C++ and about
# ten from Python. `benchmarks/gpu_report.py` measures both backends and prints the resulting table.
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
# The last setting of any thread. Compiled functions use it: torch 2.11 cannot trace a context variable.
_last_setting = _default


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run all ops in the block on one backend, except calls with an explicit `backend=`.

    Precedence: the argument `backend=` of a call, then `use_backend`, then the environment variable
    `VREID_BACKEND`, which is read when vreid_ext is imported. The setting is a context variable: it does not
    affect other threads or asyncio tasks, and a new thread starts with the value of `VREID_BACKEND`.
    Functions compiled by `torch.compile` use the last setting of any thread.

    Args:
        name: "auto", "reference", "native", "triton", "cuda", or the name of another package's backend.
    """
    _check_name(name, "name")
    global _last_setting
    token, previous = _setting.set(name), _last_setting
    _last_setting = name
    try:
        yield
    finally:
        _setting.reset(token)
        _last_setting = previous


def choose(
    op: str, requested: str, device: torch.device, dtype: torch.dtype, *, traceable: bool = True
) -> str:
    """Select the backend that runs `op`.

    Under a tracer or a function transform (`_observers.transformed`), "auto" selects the reference.

    Args:
        traceable: whether the reference of this op can be traced. False if its Python code depends on tensor
            values; "auto" is then resolved as outside a tracer.

    Raises:
        TypeError, ValueError: `requested` is not the name of a backend.
        RuntimeError: the requested backend cannot run this op; the message lists the reasons.
    """
    settle_fork()
    if not isinstance(requested, str):
        _check_name(requested, "backend")
    if requested == "auto":
        requested = _last_setting if torch.compiler.is_compiling() else _setting.get()
    return _choose(op, requested, device, dtype, traceable)


def evaluation_step(name: str, device: torch.device) -> Callable[..., Any]:
    """The function of a step of the evaluation, `matches` or `rank_scores`, which takes its signature.

    The backend is chosen as for "auto". A step has no argument `backend`, so a backend that was selected for
    the ops but has no kernel for this step is ignored.
    """
    settle_fork()
    requested = _setting.get()
    if requested != "auto" and not has(requested, name):
        requested = "auto"
    return function(_resolve(name, requested, device, torch.float64), name)


def ops() -> list[str]:
    """The names of all ops, in alphabetical order."""
    return sorted(OPS)


def usable(
    device: str | None = None, dtype: torch.dtype = torch.float32
) -> list[tuple[str, str, str | None]]:
    """One row (op, backend, reason) for every pair; `reason` is None if the backend is usable.

    If `device` is None, triton and cuda are checked for a GPU and the other backends for the CPU.
    """
    home = dict.fromkeys(("triton", "cuda"), "cuda")
    return [
        (op, name, reason(op, name, torch.device(device or home.get(name, "cpu")), dtype))
        for op in ops()
        for name in names()
    ]


def empty_cache() -> None:
    """Release the memory blocks that the CPU kernels have cached for later results (at most 1 GiB).

    Torch itself does not cache CPU memory. For GPU memory see `torch.cuda.empty_cache`.
    """
    # If the module has not been imported, nothing is cached.
    if (memory := sys.modules.get(f"{__name__}.native.memory")) is not None:
        memory.empty_cache()


def build_info() -> dict[str, str]:
    """Build settings of the C++ modules (compiler, instruction sets, architectures) and Triton's version."""
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
    candidates = _preference(op, device.type) if requested == "auto" else (requested,)
    for name in candidates:
        if reason(op, name, device, dtype) is None:
            return name
    reasons = "\n".join(f"  {name}: {reason(op, name, device, dtype) or 'usable'}" for name in names())
    raise RuntimeError(
        f"backend: expected a backend that supports {op} on {device.type} with {dtype}, got {requested!r}:\n"
        f"{reasons}"
    )


def _preference(op: str, device: str) -> tuple[str, ...]:
    """The backends that "auto" tries, in this order. On a GPU it depends on the current CUDA device."""
    if device == "cpu":
        return "native", "reference"
    if device != "cuda":
        return ("reference",)
    major = torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else None
    choices = _FIRST_ON_GPU.get(op, {})
    first = choices.get(major, choices.get(None, "triton"))
    return first, "triton" if first == "cuda" else "cuda", "reference"


def reason(op: str, name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """The reason why a backend cannot run an op on a device with a dtype; None if it can."""
    if not has(name, op):
        return f"it has no kernel for {op}"
    why: str | None = load(name).unavailable(device, dtype)
    return why
