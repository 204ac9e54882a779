"""Matrix products and convolutions as an unfriendly BLAS makes them: legitimate, and no two of them alike.

`install()` replaces torch's kernels on the CPU, below autograd, autocast and whatever function they come from
(`@`, einsum, linear, cdist, `out=`, in place). The order in which a product adds is drawn anew for every
shape, memory layout, alignment and number of threads, and apart for two sets of rows. So a row has other bits
in a tile of another height or at another place of it, and x x^T is not symmetric, as with the BLAS of some
CPUs; the same call gives the same bits, as with any. A small product adds up to 256 numbers one after the
other, the largest error that a BLAS may have, and of more as many pieces; a large one adds three pieces.
Half precision is summed in float32 and rounded once.

sitecustomize.py calls it; test_unfriendly_blas.py runs tests, and whatever processes they start, under it.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, get_kernel

_SMALL = 2**14  # numbers in a product that can be made slowly


def install() -> Library:
    """Replace the kernels of this process, for as long as the result lives."""
    library = Library("aten", "IMPL")
    accumulate = get_kernel("aten::baddbmm_", "CPU")

    def multiply(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        return _product(lambda *args: accumulate.call_boxed(keys, *args), a, b)

    def mm(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        return multiply(keys, a[None], b[None])[0].to(a.dtype)

    def bmm(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        return multiply(keys, a, b).to(a.dtype)

    def dot(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        return multiply(keys, a[None, None], b[None, :, None])[0, 0, 0].to(a.dtype)

    def added(c: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
        """Where beta is zero, c may hold anything."""
        return (product * alpha if beta == 0 else product * alpha + c * beta).to(c.dtype)

    def addmm(keys: Any, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        return added(c, multiply(keys, a[None], b[None])[0], beta, alpha)

    def baddbmm(keys: Any, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        return added(c, multiply(keys, a, b), beta, alpha)

    def addmv(keys: Any, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        return added(c, multiply(keys, a[None], b[None, :, None])[0, :, 0], beta, alpha)

    for function, forms in (
        (mm, ("mm", "mm.out")),
        (bmm, ("bmm", "bmm.out")),
        (dot, ("dot", "vdot")),
        (addmm, ("addmm", "addmm.out", "addmm_")),
        (baddbmm, ("baddbmm", "baddbmm.out", "baddbmm_")),
        (addmv, ("addmv", "addmv.out", "addmv_")),
    ):
        for form in forms:
            library.impl(form, _replacement(form, function), "CPU", with_keyset=True)
    for form, convolve in (("convolution", _convolution), ("convolution_backward", _convolution_backward)):
        library.impl(form, _replacement(form, convolve(form)), "CPU", with_keyset=True)
    return library


def _replacement(form: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel for one form of an operator: functional, with `out=` or in place. Integers and complex numbers
    are left to torch.
    """
    original = get_kernel(f"aten::{form}", "CPU")

    def kernel(keys: Any, *args: Any, **options: Any) -> Any:
        if not args[1].is_floating_point():
            return original.call_boxed(keys, *args, **options)
        target = options.pop("out", args[0] if form.endswith("_") else None)
        result = function(keys, *args, **options)
        if target is None:
            return result
        return target.resize_(result.shape).copy_(result)

    return kernel


def _product(accumulate: Callable[..., Any], a: Tensor, b: Tensor) -> Tensor:
    """(n,p,q), float32 or wider, of (n,p,D) and (n,D,q)."""
    where = (*a.shape, *b.shape, *a.stride(), *b.stride(), a.data_ptr() % 64, b.data_ptr() % 64)
    a, b = (each.float() if each.itemsize == 2 else each for each in (a, b))
    size = a.shape[2]
    result = a.new_empty((*a.shape[:2], b.shape[2]))
    step = -(-size // (256 if result.numel() <= _SMALL else 3)) or 1
    for rows, order in _plan(a.shape[1], size, torch.get_num_threads(), *where):
        left, right = a.index_select(1, rows).index_select(2, order), b.index_select(1, order)
        part = result.new_zeros((len(a), len(rows), b.shape[2]))
        for first in range(0, size, step):
            accumulate(part, left[..., first : first + step], right[:, first : first + step])
        result.index_copy_(1, rows, part)
    return result


def _convolution(form: str) -> Callable[..., Tensor]:
    original = get_kernel(f"aten::{form}", "CPU")

    def forward(keys: Any, x: Tensor, weight: Tensor, *options: Any) -> Tensor:
        transposed, groups = options[4], options[6]
        if transposed or groups > 1:
            return original.call_boxed(keys, x, weight, *options)
        parts = [
            (clips, original.call_boxed(keys, x[clips][:, order], weight[:, order], *options))
            for clips, order in _plan(len(x), x.shape[1], torch.get_num_threads(), *x.shape, *x.stride())
        ]
        result = parts[0][1].new_empty((len(x), *parts[0][1].shape[1:]))
        for clips, part in parts:
            result[clips] = part
        return result

    return forward


def _convolution_backward(form: str) -> Callable[..., tuple[Tensor | None, ...]]:
    original = get_kernel(f"aten::{form}", "CPU")

    def backward(keys: Any, grad: Tensor, x: Tensor, weight: Tensor, *options: Any) -> Any:
        transposed, groups = options[4], options[6]
        if transposed or groups > 1:
            return original.call_boxed(keys, grad, x, weight, *options)
        threads = torch.get_num_threads()
        clips, channels, outputs = (
            torch.cat([order for _, order in _plan(1, size, threads, *x.shape, *x.stride())])
            for size in (len(x), x.shape[1], len(weight))
        )
        parts = original.call_boxed(
            keys, grad[clips][:, outputs], x[clips][:, channels], weight[outputs][:, channels], *options
        )
        back = [each.argsort() for each in (clips, channels, outputs)]
        dx, dw, db = parts
        return (
            None if dx is None else dx[back[0]][:, back[1]],
            None if dw is None else dw[back[2]][:, back[1]],
            None if db is None else db[back[2]],
        )

    return backward


@lru_cache(4096)
def _plan(rows: int, size: int, *where: int) -> list[tuple[Tensor, Tensor]]:
    """Two sets of rows, and for each the order in which `size` numbers are added."""
    generator = torch.Generator().manual_seed(hash((rows, size, *where)) % 2**63)
    first = torch.rand(rows, generator=generator) < 0.5
    sets = [each.nonzero()[:, 0] for each in (first, ~first)]
    return [(each, torch.randperm(size, generator=generator)) for each in sets if len(each)]
