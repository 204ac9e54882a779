"""Who looks at a call of an op: compilers, tracers, function transforms, modes, profilers.

A kernel may be called past torch's dispatcher only if nobody looks on. torch answers that through private
functions. Where a version of torch lacks one of them, every call goes through the dispatcher.
"""

from typing import Any

import torch
from torch.autograd import forward_ad


def _private(path: str) -> Any:
    """A function of torch that is not public, None where this torch has no such name."""
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
    """Whether the arithmetic itself is asked for: a `torch.jit.trace` that records it, forward-mode AD, or a
    transform of `torch.func`. Plain torch has rules for all of them, a kernel has none.
    """
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]  # public, but not in torch's __all__
    return tracing or transforming() or forward_mode()


def observed() -> bool:
    """Whether somebody has to see the operator."""
    return _incomplete or bool(
        torch.compiler.is_compiling()
        or _dispatch_modes() > 0
        or _function_modes() > 0
        or _profiling()
        or transformed()
    )


def symbolic() -> bool:
    """Whether Python must not branch on a tensor's numbers: it has none, or the branch would be recorded."""
    return bool(
        torch.compiler.is_compiling() or transformed() or _dispatch_modes is None or _dispatch_modes() > 0
    )


def forward_mode() -> bool:
    """Whether a level of forward-mode AD is open, also that of `torch.func.jvp`."""
    level = getattr(forward_ad, "_current_level", None)
    if level is not None:
        return bool(level >= 0)
    zero = torch.zeros((), dtype=torch.float32, device="cpu")
    try:
        forward_ad.make_dual(zero, zero)  # raises where none is
    except RuntimeError:
        return False
    return True


def transforming() -> bool:
    """Whether a transform of `torch.func` runs."""
    return _transform is not None and _transform() is not None


def batched(args: tuple[Any, ...]) -> bool:
    """Whether gradients are wrappers without memory: `torch.autograd.grad(is_grads_batched=True)`."""
    return not all(_has_storage(each) for each in args if isinstance(each, torch.Tensor))
