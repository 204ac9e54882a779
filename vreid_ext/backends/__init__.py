"""Which implementation of an op runs: `reference`, `native` (CPU), `triton` or `cuda`.

Every backend is a package here with the same function names and a function
`unavailable(op, device, dtype)` that says why it cannot run an op, or None. The reference defines
which ops there are.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch

from vreid_ext import _observers

BACKENDS = ("reference", "native", "triton", "cuda")

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
        raise TypeError(f"{argument}: got {type(name).__name__}, wanted one of {('auto', *BACKENDS)}")
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"{argument}: got {name!r}, wanted one of {('auto', *BACKENDS)}")


_setting = os.environ.get("VREID_BACKEND", "auto")
_check_name(_setting, "VREID_BACKEND")


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every op in the block on one backend, unless a call names another.

    Args:
        name: "auto", "reference", "native", "triton" or "cuda".

    The setting belongs to the process, so threads that run at the same time share it. Over it stands
    the `backend=` argument of a call; under it the environment variable `VREID_BACKEND`, read when vreid_ext
    is imported.
    """
    global _setting
    _check_name(name, "name")
    previous, _setting = _setting, name
    try:
        yield
    finally:
        _setting = previous


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
    if not isinstance(requested, str):
        _check_name(requested, "backend")
    requested = _setting if requested == "auto" else requested
    return _choose(op, requested, device, dtype, traceable)


@cache
def load(name: str) -> ModuleType:
    """The backend's package, imported on first use."""
    return import_module(f"vreid_ext.backends.{name}")


def ops() -> list[str]:
    """Every op, in alphabetical order."""
    return sorted(load("reference").__all__)


def table(device: str | None = None, dtype: torch.dtype = torch.float32) -> list[tuple[str, str, str | None]]:
    """One row (op, backend, why not) for every pair; the last entry is None where the backend is usable.

    Without `device`, each backend is asked about the device it is made for: native about the CPU,
    triton and cuda about the GPU.
    """
    home = {"reference": "cpu", "native": "cpu", "triton": "cuda", "cuda": "cuda"}
    return [
        (op, name, _reason(op, name, torch.device(device or home[name]), dtype))
        for op in ops()
        for name in BACKENDS
    ]


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
        if _reason(op, name, device, dtype) is None:
            return name
    reasons = "\n".join(f"  {name}: {_reason(op, name, device, dtype) or 'usable'}" for name in BACKENDS)
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


def _reason(op: str, name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    reason: str | None = load(name).unavailable(op, device, dtype)
    return reason
