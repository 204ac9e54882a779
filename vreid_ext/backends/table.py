"""The table of ops, and the backends that have a kernel for each.

A built-in backend is a subpackage with one module per family of ops, `<backend>/<family>.py`. The module has
a function `<op>` for each op and, if the op is differentiable, `<op>_backward`. Each function takes an
instance of its class in `backends.signatures`; only the functions of the reference take the arguments one by
one, so that they read like formulas, and have no `<op>_backward`. `<backend>/__init__.py` has
`unavailable(device, dtype)`, which returns the reason why the backend cannot run on a device with a dtype, or
None.

Other packages add backends by an entry point in the group `vreid_ext.backends`. The name of the entry point
is the name of the backend; its value is a module with `unavailable` and the functions of the supported ops,
which take the arguments one by one. Such a backend runs only if a call, `use_backend` or `VREID_BACKEND`
selects it.
"""

from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, NamedTuple

BUILT_IN = ("reference", "native", "triton", "cuda")
_ALL = BUILT_IN[1:]  # the backends with kernels


class Op(NamedTuple):
    """The family of an op, and the built-in backends (except the reference) that have a kernel for it."""

    family: str
    backends: tuple[str, ...]


OPS = {
    "attention_map": Op("sta", _ALL),
    "batch_hard": Op("mining", _ALL),
    "batch_hard_triplet": Op("mining", _ALL),
    "block_scores": Op("sta", _ALL),
    "feature_rank_counts": Op("ranking", ("native",)),
    "fuse": Op("sta", _ALL),
    "hellinger_overlap": Op("region", ("native", "triton")),
    "identity_hard": Op("mining", _ALL),
    "inter_frame_distance": Op("sta", ("native", "triton")),
    "jaccard_graph": Op("rerank", ("native",)),
    "k_reciprocal": Op("rerank", ("native",)),
    "matches": Op("protocol", ("native",)),
    "mined_distance": Op("mining", _ALL),
    "pair_distances": Op("ranking", ("native",)),
    "part_distance": Op("part_metric", _ALL),
    "rank_counts": Op("ranking", ("native", "cuda")),
    "rank_scores": Op("protocol", ("native",)),
    "region_pool": Op("region", _ALL),
    "sta_pool": Op("sta", _ALL),
    "temporal_pool": Op("region", ("native", "triton")),
    "top_k": Op("ranking", ("native",)),
}


@cache
def names() -> tuple[str, ...]:
    """All backends: the built-in ones, then those of other packages in alphabetical order."""
    return BUILT_IN + tuple(sorted({point.name for point in _others()} - set(BUILT_IN)))


@cache
def load(backend: str) -> ModuleType:
    """The module of a backend, imported on first use."""
    if backend in BUILT_IN:
        return import_module(f"{__package__}.{backend}")
    module: ModuleType = next(point for point in _others() if point.name == backend).load()
    return module


def has(backend: str, op: str) -> bool:
    """Whether a backend has a kernel for an op, even if it is not usable on this machine."""
    if backend in BUILT_IN:
        return backend == "reference" or backend in OPS[op].backends
    return hasattr(load(backend), op)


@cache
def function(backend: str, name: str) -> Callable[..., Any]:
    """The function `<op>` or `<op>_backward` of a backend, as a function of an instance of its signature."""
    module = load(backend)
    if backend in BUILT_IN:
        module = import_module(f"{module.__name__}.{OPS[name.removesuffix('_backward')].family}")
    kernel: Callable[..., Any] = getattr(module, name)
    if backend in _ALL:
        return kernel
    return wraps(kernel)(lambda inputs: kernel(*inputs))


@cache
def _others() -> tuple[Any, ...]:
    return tuple(entry_points(group="vreid_ext.backends"))
