"""Detects observers of an op call: compilers, tracers, function transforms, modes, profilers.

A kernel may bypass torch's dispatcher only if no observer is active. Only private functions of torch report
this. If the installed torch lacks one of them, every call goes through the dispatcher.
"""

from typing import Any

import torch
from torch.autograd import forward_ad


def _private(path: str) -> Any:
    """A private function of torch, or None if this version of torch does not have it."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


_dispatch_modes = _private("_C._len_torch_dispatch_stack")
_function_modes = _private("_C._len_torch_function_stack")
_transform = _private("_C._functorch.peek_interpreter_stack")
_profiling = _private("_C._autograd._profiler_enabled")
_has_storage = _private("_C._has_storage")
_incomplete = None in (_dispatch_modes, _function_modes, _transform, _profiling, _has_storage)


def transformed() -> bool:
    """Whether a `torch.jit.trace`, forward-mode AD or a transform of `torch.func` is active. They require
    plain torch operators; a kernel has no rules for them.
    """
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]  # public, but not in torch's __all__
    return tracing or transforming() or forward_mode()


def observed() -> bool:
    """Whether an active observer must receive the call as an operator of the dispatcher."""
    return _incomplete or bool(
        torch.compiler.is_compiling()
        or _dispatch_modes() > 0
        or _function_modes() > 0
        or _profiling()
        or transformed()
    )


def symbolic() -> bool:
    """Whether Python must not branch on values: fake tensors have none, and tracers record one branch."""
    return bool(
        torch.compiler.is_compiling() or transformed() or _dispatch_modes is None or _dispatch_modes() > 0
    )


def forward_mode() -> bool:
    """Whether a forward-mode AD level is active, including that of `torch.func.jvp`."""
    level = getattr(forward_ad, "_current_level", None)
    if level is not None:
        return bool(level >= 0)
    zero = torch.zeros((), dtype=torch.float32, device="cpu")
    try:
        forward_ad.make_dual(zero, zero)  # raises if no level is active
    except RuntimeError:
        return False
    return True


def transforming() -> bool:
    """Whether a transform of `torch.func` is active."""
    return _transform is not None and _transform() is not None


def batched(args: tuple[Any, ...]) -> bool:
    """Whether gradients are wrappers without storage, as in `torch.autograd.grad(is_grads_batched=True)`."""
    return not all(_has_storage(each) for each in args if isinstance(each, torch.Tensor))
