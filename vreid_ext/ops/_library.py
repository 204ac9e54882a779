"""Registers ops with torch: schema, shape function, backend call and gradient, in one place.

Each op's schema ends in `str backend`; its kernel is the function of the same name in that backend's
package. The reference backend does not come through here: it is plain torch, called and differentiated
directly.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.library import Library, register_autograd, register_fake

from vreid_ext import backends

_library = Library("vreid_ext", "FRAGMENT")


def register(
    schema: str,
    *,
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> torch._ops.OpOverload:
    """Define `vreid_ext::<schema>` and return it.

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
        if any(isinstance(value, torch.Tensor) and value.numel() == 0 for value in inputs):
            return fake(*inputs)
        return getattr(backends.load(backend), name)(*inputs)

    _library.impl(name, kernel, "CompositeExplicitAutograd")
    register_fake(f"vreid_ext::{name}", lambda *args: fake(*args[:-1]), lib=_library)
    if backward is not None:
        register_autograd(f"vreid_ext::{name}", backward, setup_context=setup_context, lib=_library)
    return getattr(torch.ops.vreid_ext, name).default
