"""Public calls at the sizes of users, for `compare.py`, which times them on two versions of the package.

    python benchmarks/whole_calls.py     a worker: reads "CASE" from stdin, writes one JSON answer per line

The worker imports the package that comes first in PYTHONPATH. A case imports what it calls, so that a version
without it can run the other cases.
"""

import json
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]
CASES: dict[str, Callable[[], Call]] = {}

QUERIES, GALLERY = 1980, 9330  # of MARS


def case(name: str) -> Callable[[Callable[[], Call]], Callable[[], Call]]:
    """Register a function that prepares the inputs and returns the call that is timed."""

    def register(prepare: Callable[[], Call]) -> Callable[[], Call]:
        CASES[name] = prepare
        return prepare

    return register


def labels() -> list[Tensor]:
    """pids and camids of queries and gallery: (Q,), (G,), (Q,), (G,)."""
    return [torch.randint(high, (size,)) for high in (625, 6) for size in (QUERIES, GALLERY)]


@case("compat.torchreid.evaluate_rank 1980 x 9330")
def evaluate_rank() -> Call:
    from vreid_ext.compat import torchreid

    arrays = [torch.rand(QUERIES, GALLERY).numpy(), *(each.numpy() for each in labels())]
    return lambda: torchreid.evaluate_rank(*arrays)


@case("metrics.evaluate 1980 x 9330, D = 512")
def evaluate() -> Call:
    from vreid_ext import metrics

    query, gallery = torch.randn(QUERIES, 512), torch.randn(GALLERY, 512)
    known = labels()
    return lambda: metrics.evaluate(query, gallery, *known)


@case("ops.top_k 200 x 9330, D = 512")
def top_k() -> Call:
    from vreid_ext import ops

    query, gallery = torch.randn(200, 512), torch.randn(GALLERY, 512)
    return lambda: ops.top_k(query, gallery, 50)


@case("ops.k_reciprocal 400 + 2000, D = 512")
def k_reciprocal() -> Call:
    from vreid_ext import ops

    query, gallery = torch.randn(400, 512), torch.randn(2000, 512)
    return lambda: ops.k_reciprocal(query, gallery).rows(0, 400)


def triplet(n: int, dimensions: int) -> Call:
    from vreid_ext.losses import TripletLoss

    x, pids, loss = torch.randn(n, dimensions, requires_grad=True), torch.arange(n) // 4, TripletLoss(0.3)
    return lambda: torch.autograd.grad(loss(x, pids), x)


@case("losses.TripletLoss step, n = 64, D = 2048")
def small_triplet() -> Call:
    return triplet(64, 2048)


@case("losses.TripletLoss step, n = 2048, D = 512")
def large_triplet() -> Call:
    return triplet(2048, 512)


def maps(dtype: torch.dtype = torch.float32, layout: str = "contiguous") -> Tensor:
    """Feature maps (16,4,2048,16,8)."""
    x = torch.randn(64, 2048, 16, 8).relu().to(dtype)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    return x.unflatten(0, (16, 4))


@case("ops.sta_pool forward")
def sta_pool() -> Call:
    from vreid_ext import ops

    x = maps()
    return lambda: ops.sta_pool(x, 4)


@case("ops.sta_pool step")
def sta_pool_step() -> Call:
    from vreid_ext import ops

    x = maps().requires_grad_()
    upstream = torch.randn_like(ops.sta_pool(x, 4).pooled)
    return lambda: torch.autograd.grad(ops.sta_pool(x, 4).pooled, x, upstream)


def region_pool(dtype: torch.dtype, layout: str) -> Call:
    from vreid_ext import ops

    x = maps(dtype, layout)
    logits = torch.randn(16, 4, 6, 128).to(dtype)
    return lambda: ops.region_pool(logits, x)


for _dtype in (torch.float32, torch.bfloat16):
    for _layout in ("contiguous", "channels_last"):
        _name = f"ops.region_pool forward {str(_dtype)[6:]} {_layout}"
        case(_name)(lambda dtype=_dtype, layout=_layout: region_pool(dtype, layout))  # type: ignore[misc]


@case("ops.region_pool step")
def region_pool_step() -> Call:
    from vreid_ext import ops

    x, logits = maps().requires_grad_(), torch.randn(16, 4, 6, 128, requires_grad=True)
    upstream = [torch.randn_like(each) for each in ops.region_pool(logits, x)]
    return lambda: torch.autograd.grad(ops.region_pool(logits, x), (logits, x), upstream)


def parts(queries: int, items: int) -> list[Tensor]:
    return [
        *(torch.randn(queries, 6, 1024).relu(), torch.rand(queries, 6)),
        *(torch.randn(items, 6, 1024).relu(), torch.rand(items, 6)),
    ]


@case("ops.part_distance 990 x 2048")
def part_distance() -> Call:
    from vreid_ext import ops

    inputs = parts(990, 2048)
    return lambda: ops.part_distance(*inputs)


@case("ops.part_distance step, 64 x 64")
def part_distance_step() -> Call:
    from vreid_ext import ops

    inputs = [each.requires_grad_() for each in parts(64, 64)]
    upstream = torch.randn(64, 64)
    return lambda: torch.autograd.grad(ops.part_distance(*inputs), inputs, upstream)


@case("losses.PartTripletLoss step, n = 64")
def part_triplet_step() -> Call:
    from vreid_ext.losses import PartTripletLoss

    features, scores = torch.randn(64, 6, 1024, requires_grad=True), torch.rand(64, 6, requires_grad=True)
    pids, loss = torch.arange(64) // 4, PartTripletLoss()
    return lambda: torch.autograd.grad(loss(features, scores, pids), (features, scores))


def main() -> None:
    """Answer each line of stdin, the name of a case, with the time of a call in milliseconds or an error."""
    import vreid_ext
    from vreid_ext import backends

    info = {"package": vreid_ext.__file__, "isa": backends.build_info().get("native isa", "no native module")}
    print(json.dumps(info), flush=True)
    prepared, call = "", lambda: None
    for line in sys.stdin:
        name = line.rstrip("\n")
        try:
            if name != prepared:
                call = lambda: None  # noqa: E731  frees the inputs of the case before
                torch.manual_seed(0)
                call, prepared = CASES[name](), name
            start = perf_counter()
            call()
            answer: dict[str, Any] = {"ms": 1e3 * (perf_counter() - start)}
        except (ImportError, AttributeError, KeyError, TypeError) as error:  # another version of the package
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
