"""Registers ops with torch: schema, shape function, backend call and gradient, in one place.

Each op's schema ends in `str backend`. Its kernel is the function of the same name in that backend
(`backends.table`). The reference backend is not registered: it is plain torch, called and differentiated
directly.

Each op exists twice: as an operator of torch's dispatcher, for `torch.compile`, `torch.export`, fake tensors
and function transforms, and as a plain `autograd.Function` for all other calls. The detour through the
dispatcher takes longer than the arithmetic of a small batch.
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
    """Define the operator `vreid_ext::<schema>` and return a function that calls it.

    Args:
        schema: name, arguments and results; `register` appends the argument `str backend`.
        fake: allocates the results for the arguments (without `backend`). If an input has no elements, the
            return value of `fake` is the result of the op and no kernel runs.
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
                if value.is_neg():  # lazy negation: the storage holds the negated values
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
        # Gradient mode is enabled during a backward only for create_graph=True (double backward).
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
    """The kernel with its gradient as an `autograd.Function`, without the dispatcher."""
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
    """Raise an error under forward-mode AD, which would silently treat the kernel's result as constant."""
    if not _observers.forward_mode():
        return
    # Inside `torch.func.jvp` an argument may carry its tangent below the wrapper of another transform.
    if _observers.transforming() or any(
        forward_ad.unpack_dual(each).tangent is not None for each in args if isinstance(each, torch.Tensor)
    ):
        raise RuntimeError(
            f"backend: expected 'auto' or 'reference' under forward-mode AD, got {args[-1]!r}: "
            f"no other backend has a forward-mode derivative of {name}"
        )


def _second_derivative(ctx: Any, *grads: Any) -> None:
    """Raise an error: without a formula, autograd would treat the second derivative as zero."""
    raise RuntimeError("backend: expected 'reference' for double backward, which no other backend supports")


def _observed(args: tuple[Any, ...]) -> bool:
    """Whether the call must go through the dispatcher: an observer is active or a type is not in `_PLAIN`."""
    return _observers.observed() or not _PLAIN.issuperset(map(type, args))
