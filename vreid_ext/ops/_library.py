"""Registers ops with torch, and runs them: selects the backend, calls the reference or the kernel.

The schema of an op and its shape function come from its signature (`backends.signatures`). The schema ends in
`str backend`, the resolved name. The kernel is the function of the same name in that backend
(`backends.table`).

Each op exists twice: as an operator of torch's dispatcher, for `torch.compile`, `torch.export`, fake tensors
and function transforms, and as a plain `autograd.Function` for all other calls. The detour through the
dispatcher takes longer than the arithmetic of a small batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import Library, register_autograd, register_fake

from vreid_ext import _observers, backends
from vreid_ext.backends import reference
from vreid_ext.backends.table import function
from vreid_ext.precision import in_full

# Types for which the kernel may be called directly. Any other type (tensor subclass, FakeTensor, ...) might
# intercept the operator.
_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter, type(None), bool, int, float, str})

_SCHEMA_TYPES = {
    Tensor: "Tensor", Tensor | None: "Tensor?", bool: "bool", int: "int", float: "float", str: "str"
}  # fmt: skip

# "vreid_ext". A copy of the package under another name has operators of its own (release/hub.py).
_NAMESPACE = __name__.partition(".")[0]
_library = Library(_NAMESPACE, "FRAGMENT")


def register(
    name: str,
    signature: Any,
    *,
    device_of: str | None = None,
    public: int | None = None,
    traceable: bool = True,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Define an op and return the function that runs it.

    The function takes the requested backend and the arguments of the signature. It selects a backend that
    supports the op. The reference is not an operator: it is plain torch, called with autocast disabled and
    differentiated directly, so it supports double backward and exports to standard operators.

    For a name that ends in `_backward`, the function takes a resolved backend.

    Args:
        signature: a class of `backends.signatures`.
        device_of: the argument whose device and dtype decide about the backend; None for the first.
        public: number of results to return, the first ones; None for all. The others are only saved for
            backward, and the reference does not return them.
        traceable: whether the reference can be traced. False if its Python code depends on tensor values; it
            then runs as a kernel of the op.
        setup_context: `(ctx, args, output)`, with an instance `args` of the signature. `ctx.backend` is set.
        backward: `(ctx, *grads)`; returns the gradients of the first arguments. Those of the other arguments
            are None. An op without `backward` is not differentiable; its inputs are detached.
    """
    run = _operator(name, signature, setup_context, backward)
    if name.endswith("_backward"):
        return lambda backend, *inputs: run(backend, inputs)
    leading = 0 if device_of is None else signature._fields.index(device_of)
    specification = getattr(reference, name)
    part: int | slice | None = None if public is None else 0 if public == 1 else slice(public)

    def call(backend: str, *inputs: Any) -> Any:
        x = inputs[leading]
        backend = backends.choose(name, backend, x.device, x.dtype, traceable=traceable)
        if backward is None:
            inputs = tuple(each.detach() if isinstance(each, Tensor) else each for each in inputs)
        if backend == "reference" and traceable:
            return in_full(specification, x, *inputs)
        result = run(backend, inputs)
        return result if part is None else result[part]

    return call


def _operator(
    name: str,
    signature: Any,
    setup_context: Callable[..., None] | None,
    backward: Callable[..., Any] | None,
) -> Callable[..., Any]:
    """Define the operator `vreid_ext::<name>` and return a function of the backend and the tuple of inputs
    that calls the operator or its kernel.
    """
    types = get_type_hints(signature)
    fields = ", ".join(f"{_SCHEMA_TYPES[kind]} {field}" for field, kind in types.items())
    results = ", ".join(_results(signature))
    _library.define(
        f"{name}({fields}, str backend) -> ({results})",
        tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides),
    )
    tensors = [i for i, kind in enumerate(types.values()) if kind in (Tensor, Tensor | None)]
    omitted = (None,) * (len(types) + 1)
    instance = partial(tuple.__new__, signature)  # takes half the time of `signature._make`

    def kernel(backend: str, args: Any) -> Any:
        for i in tensors:
            value = args[i]
            if value is None:
                continue
            if value.numel() == 0:
                return args.results()
            if value.is_neg():  # lazy negation: the storage holds the negated values
                args = args._replace(**{signature._fields[i]: value.resolve_neg()})
        return function(backend, name)(args)

    def forward(ctx: Any, *inputs: Any) -> Any:
        args = instance(inputs[:-1])
        result = kernel(inputs[-1], args)
        save(ctx, args, inputs[-1], result)
        return result

    def save(ctx: Any, args: Any, backend: str, result: Any) -> None:
        assert setup_context is not None
        ctx.backend = backend
        setup_context(ctx, args, result)

    def gradients(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        assert backward is not None
        first = backward(ctx, *grads)
        return *first, *omitted[len(first) :]

    _library.impl(
        name, lambda *inputs: kernel(inputs[-1], instance(inputs[:-1])), "CompositeExplicitAutograd"
    )
    register_fake(f"{_NAMESPACE}::{name}", lambda *inputs: instance(inputs[:-1]).results(), lib=_library)
    gradient = name.endswith("_backward")
    apply: Callable[..., Any] | None = None
    if gradient:
        register_autograd(f"{_NAMESPACE}::{name}", _second_derivative, lib=_library)
    elif backward is not None:
        register_autograd(
            f"{_NAMESPACE}::{name}",
            gradients,
            setup_context=lambda ctx, inputs, output: save(ctx, instance(inputs[:-1]), inputs[-1], output),
            lib=_library,
        )
        members = {"forward": staticmethod(forward), "backward": staticmethod(gradients)}
        apply = type(f"{name}_function", (torch.autograd.Function,), members).apply  # type: ignore[attr-defined]
    overload = getattr(getattr(torch.ops, _NAMESPACE), name).default

    def run(backend: str, inputs: tuple[Any, ...]) -> Any:
        # Gradient mode is enabled during a backward only for create_graph=True (double backward).
        if _observed(inputs) or (gradient and (torch.is_grad_enabled() or _observers.batched(inputs))):
            _no_tangents(name, backend, inputs)
            return overload(*inputs, backend)
        if apply is not None and torch.is_grad_enabled():
            for i in tensors:  # without a gradient, an autograd node would only cost time
                if inputs[i] is not None and inputs[i].requires_grad:
                    return apply(*inputs, backend)
        return kernel(backend, instance(inputs))

    return run


def _results(signature: Any) -> list[str]:
    """The types of the results in the schema."""
    kind = get_type_hints(signature.results)["return"]
    return [_SCHEMA_TYPES[each] for each in get_args(kind) or (kind,)]


def _no_tangents(name: str, backend: str, inputs: tuple[Any, ...]) -> None:
    """Raise an error under forward-mode AD, which would silently treat the kernel's result as constant."""
    if not _observers.forward_mode():
        return
    # Inside `torch.func.jvp` an argument may carry its tangent below the wrapper of another transform.
    if _observers.transforming() or any(
        forward_ad.unpack_dual(each).tangent is not None for each in inputs if isinstance(each, Tensor)
    ):
        raise RuntimeError(
            f"backend: expected 'auto' or 'reference' under forward-mode AD, got {backend!r}: "
            f"no other backend has a forward-mode derivative of {name}"
        )


def _second_derivative(ctx: Any, *grads: Any) -> None:
    """Raise an error: without a formula, autograd would treat the second derivative as zero."""
    raise RuntimeError("backend: expected 'reference' for double backward, which no other backend supports")


def _observed(inputs: tuple[Any, ...]) -> bool:
    """Whether the call must go through the dispatcher: an observer is active or a type is not in `_PLAIN`."""
    return _observers.observed() or not _PLAIN.issuperset(map(type, inputs))
