"""Registers ops with torch: schema, shape function, backend call and gradient, in one place.

Each op's schema ends in `str backend`; its kernel is the function of the same name in that backend
(`backends.table`). The reference backend is not registered: it is plain torch, called and differentiated
directly.

Each op is two things: an operator of torch's dispatcher, which `torch.compile`, `torch.export`, fake tensors
and function transforms go through, and a plain `autograd.Function` for everything else, because the way
through the dispatcher and back costs more than a small batch's arithmetic.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.library import Library, register_autograd, register_fake

from vreid_ext import _observers
from vreid_ext.backends.table import function

# Types for which the kernel may be called directly. Any other type (tensor subclass, FakeTensor, ...) might
# intercept the operator.
_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter, type(None), bool, int, float, str})

_library = Library("vreid_ext", "FRAGMENT")


def register(
    schema: str,
    *,
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Define `vreid_ext::<schema>` and return what calls it.

    Args:
        schema: name, arguments and results; the trailing `str backend` is added here.
        fake: allocates the results for the arguments (without `backend`); an input without elements
            is answered by it alone, so that kernels see none.
        setup_context, backward: as for `torch.library.register_autograd`.
    """
    name = schema.partition("(")[0]
    _library.define(
        schema.replace(") ->", ", str backend) ->"),
        tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides),
    )

    def kernel(*args: Any) -> Any:
        *inputs, backend = args
        for i, value in enumerate(inputs):
            if isinstance(value, torch.Tensor):
                if value.numel() == 0:
                    return fake(*inputs)
                if value.is_neg():  # its memory holds the numbers with the other sign
                    inputs[i] = value.resolve_neg()
        return function(backend, name)(*inputs)

    _library.impl(name, kernel, "CompositeExplicitAutograd")
    register_fake(f"vreid_ext::{name}", lambda *args: fake(*args[:-1]), lib=_library)
    if backward is not None:
        register_autograd(f"vreid_ext::{name}", backward, setup_context=setup_context, lib=_library)
    gradient = name.endswith("_backward")
    if gradient:
        register_autograd(f"vreid_ext::{name}", _second_derivative, lib=_library)
    overload = getattr(torch.ops.vreid_ext, name).default
    differentiable = _function(name, kernel, setup_context, backward)

    def call(*args: Any) -> Any:
        # Gradients are enabled while a gradient is computed if it is to be differentiated again.
        if _observed(args) or (gradient and (torch.is_grad_enabled() or _observers.batched(args))):
            _no_tangents(name, args)
            return overload(*args)
        return differentiable(*args) if torch.is_grad_enabled() else kernel(*args)

    return call


def _function(
    name: str,
    kernel: Callable[..., Any],
    setup_context: Callable[..., None] | None,
    backward: Callable[..., Any] | None,
) -> Callable[..., Any]:
    """The kernel with its gradient, past the dispatcher."""
    if setup_context is None or backward is None:
        return kernel

    def forward(ctx: Any, *args: Any) -> Any:
        result = kernel(*args)
        setup_context(ctx, args, result)
        return result

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(f"{name}_function", (torch.autograd.Function,), members)
    apply: Callable[..., Any] = function.apply
    return apply


def _no_tangents(name: str, args: tuple[Any, ...]) -> None:
    """An error for forward-mode AD, in which a kernel's result would count as constant."""
    if not _observers.forward_mode():
        return
    # Inside `torch.func.jvp` an argument may carry its tangent below the wrapper of another transform.
    if _observers.transforming() or any(
        forward_ad.unpack_dual(each).tangent is not None for each in args if isinstance(each, torch.Tensor)
    ):
        raise RuntimeError(
            f"backend: expected 'auto' or 'reference' under forward-mode AD, got {args[-1]!r}, "
            f"whose {name} has no forward-mode derivative"
        )


def _second_derivative(ctx: Any, *grads: Any) -> None:
    """An error, since what is not differentiated would count as zero."""
    raise RuntimeError("this op has no second derivative but in backend='reference'")


def _observed(args: tuple[Any, ...]) -> bool:
    """Whether somebody has to see the operator: an observer of the call, or an argument's own type."""
    return _observers.observed() or not _PLAIN.issuperset(map(type, args))
