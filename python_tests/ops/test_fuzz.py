"""Calls of every op that nobody would write down: odd shapes, strides, numbers and arguments.

What may come of a call is the answer of the reference (in the call's dtype or in float64, gradients
included, NaN where it has NaN) or a `TypeError` or `ValueError` that names an argument, the same from every
backend; and the inputs stay as they were. One description of calls serves hypothesis, which shrinks what
fails, and a campaign of many calls in processes of their own, in which a crash or a hang is one more finding.

    python python_tests/ops/test_fuzz.py native 0 1000 10     runs calls 1000 to 1009 of seed 0
"""

import faulthandler
import inspect
import json
import os
import random
import re
import subprocess
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vreid_ext import backends, ops
from vreid_ext.backends.errors import NotFiniteError
from vreid_ext.backends.native import memory

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
METRICS = ("euclidean", "squared", "cosine")
RANKED = ("cosine", "euclidean")


@dataclass
class Call:
    """One call: arguments by name (a function stands for what has to be made anew each time)."""

    op: str
    arguments: dict[str, Any]
    mode: str = "plain"
    leaves: list[str] = field(default_factory=list)
    spoiled: str | None = None
    seed: int = 0

    def __str__(self) -> str:
        def show(value: Any) -> str:
            if isinstance(value, tuple):
                return f"({', '.join(map(show, value))})"
            if not isinstance(value, Tensor):
                return repr(value)
            strides = f"strides {value.stride()}" if value.layout == torch.strided else value.layout
            text = f"{value.dtype}{list(value.shape)} {strides} on {value.device}"
            plain = value.layout == torch.strided and value.device.type == "cpu"
            return text + (f" {value.tolist()}" if plain and value.numel() < 200 else "")

        lines = [f"  {name} = {show(value)}" for name, value in self.arguments.items()]
        head = f"{self.op}, {self.mode}, gradients of {self.leaves}, spoiled: {self.spoiled}"
        return "\n".join([head, *lines])


# Sizes and numbers ---------------------------------------------------------------------------------------


def size(r: random.Random, most: int = 40) -> int:
    return min(most, r.choice([1, 1, 2, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33]))


def batch(r: random.Random) -> int:
    return r.choice([0, 1, 1, 2, 2, 3])


def divisor(r: random.Random, n: int) -> int:
    return r.choice([k for k in range(1, n + 1) if n % k == 0])


def generator(r: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(r.getrandbits(32))


def numbers(r: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    x = torch.randn(shape, generator=generator(r), dtype=torch.float64)
    limits = torch.finfo(dtype)
    kind = r.choice(
        ["normal", "normal", "positive", "relu", "few", "zero", "offset", "huge", "tiny", "mixed", "special"]
    )
    if kind == "positive":
        x = x.abs()
    elif kind == "relu":
        x = x.relu()
    elif kind == "few":
        x = x.round()
    elif kind == "zero":
        x = x * 0
    elif kind == "offset":
        x = x * r.choice([1e-3, 1, 0]) + r.choice([-100, 10, 1000])
    elif kind == "huge":
        x = x * limits.max ** r.uniform(0.3, 0.99)
    elif kind == "tiny":
        x = x * limits.smallest_normal ** r.uniform(0.3, 1.1)
    elif kind == "mixed":
        x = x * 10 ** torch.linspace(-r.uniform(0, 12), r.uniform(0, 4), x.numel() or 1)[: x.numel()].view(
            shape
        )
    x = x.to(dtype)
    if kind == "special" and x.numel():
        for _ in range(r.choice([1, 1, 3])):
            place = r.randrange(x.numel())
            value = r.choice([torch.nan, torch.inf, -torch.inf, limits.max, limits.tiny / 4, -0.0])
            x.view(-1)[place] = value
    return x


def laid_out(r: random.Random, x: Tensor) -> Tensor:
    """The numbers of x behind other strides; NaN around them where there is an around."""
    kinds = "plain plain moved permuted padded stepped expanded windows single shifted flipped negated"
    kind = r.choice(kinds.split())
    if not x.dim() or not x.numel():
        return x
    axis = r.randrange(x.dim())
    outside: Any = torch.nan if x.is_floating_point() else (False if x.dtype == torch.bool else -7)
    if kind == "moved":
        return x.movedim(axis, -1).contiguous().movedim(-1, axis)
    if kind == "permuted":
        order = list(range(x.dim()))
        r.shuffle(order)
        return x.permute(order).contiguous().permute([order.index(i) for i in range(x.dim())])
    if kind == "padded":
        before = [r.choice([0, 0, 1, 2]) for _ in x.shape]
        stored = [n + b + r.choice([0, 0, 1, 3]) for n, b in zip(x.shape, before)]
        view = torch.full(stored, outside, dtype=x.dtype)
        for i, (b, n) in enumerate(zip(before, x.shape)):
            view = view.narrow(i, b, n)
        return view.copy_(x)
    if kind == "stepped":
        stored = list(x.shape)
        stored[axis] = 2 * stored[axis] + 1
        view = torch.full(stored, outside, dtype=x.dtype).transpose(0, axis)[1::2].transpose(0, axis)
        return view.copy_(x)
    if kind == "expanded":
        return x.select(axis, 0).unsqueeze(axis).clone().expand(x.shape)
    if kind == "windows" and x.dim() > 1:
        flat = x.flatten()[: x.shape[-1] + x.shape[-2]]
        stride = [0] * (x.dim() - 2) + [1, 1]
        return flat.clone().as_strided(x.shape, stride)
    if kind == "single":
        x = x.contiguous()
        return x.as_strided(
            x.shape, [r.choice([0, 3, 10**9]) if n == 1 else s for n, s in zip(x.shape, x.stride())]
        )
    if kind == "shifted":
        return torch.full((x.numel() + 1,), outside, dtype=x.dtype)[1:].view(x.shape).copy_(x)
    if kind == "flipped":
        return x.flip(axis)
    if kind == "negated" and x.is_floating_point():
        return torch._neg_view(-x)
    return x


def floats(r: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return laid_out(r, numbers(r, shape, dtype))


def integers(r: random.Random, shape: tuple[int, ...], low: int, high: int) -> Tensor:
    """From low to high - 1; zeros where there is no such number."""
    return torch.randint(low, max(high, low + 1), shape, generator=generator(r))


def mask(r: random.Random, shape: tuple[int, ...]) -> Tensor | None:
    if r.random() < 0.5:
        return None
    share = r.choice([0.0, 0.5, 0.8, 1.0])
    return laid_out(r, torch.rand(shape, generator=generator(r)) < share)


# The ops -------------------------------------------------------------------------------------------------

Arguments = dict[str, Any]
DRAWN: dict[str, Callable[[random.Random], Arguments]] = {}


def draws(*names: str) -> Callable[..., Any]:
    def add(function: Callable[[random.Random], Arguments]) -> Callable[[random.Random], Arguments]:
        DRAWN.update(dict.fromkeys(names, function))
        return function

    return add


def maps(r: random.Random) -> Tensor:
    shape = batch(r), size(r, 5), size(r), size(r, 9), size(r, 9)
    return floats(r, shape, r.choice(FLOATS))


@draws("attention_map")
def attention_map(r: random.Random) -> Arguments:
    return {
        "x": maps(r),
        "energy": r.choice(["sum_square", "l2"]),
        "normalize": r.choice(["sum", "l2"]),
    }


@draws("block_scores")
def block_scores(r: random.Random) -> Arguments:
    shape = batch(r), size(r, 5), size(r, 16), size(r)
    attention = floats(r, shape, r.choice(FLOATS))
    return {"attention": attention, "blocks": divisor(r, shape[2]), "valid": mask(r, shape[:2])}


@draws("fuse")
def fuse(r: random.Random) -> Arguments:
    x = maps(r)
    shape = *x.shape[:2], divisor(r, x.shape[3])
    return {"x": x, "scores": floats(r, shape, r.choice(FLOATS)), "valid": mask(r, shape[:2])}


@draws("sta_pool")
def sta_pool(r: random.Random) -> Arguments:
    x = maps(r)
    return {"x": x, "blocks": divisor(r, x.shape[3]), "valid": mask(r, x.shape[:2])}


@draws("inter_frame_distance")
def inter_frame_distance(r: random.Random) -> Arguments:
    shape, seed = (batch(r), size(r, 8), size(r, 9), size(r)), r.getrandbits(32)
    return {
        "attention": floats(r, shape, r.choice(FLOATS)),
        "pairs": r.choice(["random", "all"]),
        "generator": lambda: torch.Generator().manual_seed(seed),
    }


@draws("region_pool")
def region_pool(r: random.Random) -> Arguments:
    x = maps(r)
    shape = *x.shape[:2], size(r, 9), x.shape[3] * x.shape[4]
    return {"logits": floats(r, shape, r.choice([x.dtype, *FLOATS])), "x": x}


@draws("hellinger_overlap")
def hellinger_overlap(r: random.Random) -> Arguments:
    weights = numbers(r, (batch(r), size(r, 5), size(r, 9), size(r)), r.choice(FLOATS))
    if r.random() < 0.9:
        weights = weights.abs()
    return {"weights": laid_out(r, weights), "form": r.choice(["hellinger", "text"])}


@draws("temporal_pool")
def temporal_pool(r: random.Random) -> Arguments:
    shape, dtype = (batch(r), size(r, 5), size(r, 5), size(r)), r.choice(FLOATS)
    return {
        "scores": floats(r, shape[:3], r.choice([dtype, *FLOATS])),
        "features": floats(r, shape, dtype),
        "valid": mask(r, shape[:2]),
    }


@draws("part_distance")
def part_distance(r: random.Random) -> Arguments:
    q, g, parts, d, dtype = size(r), size(r), size(r, 5), size(r), r.choice(FLOATS)
    q, g = (r.choice([n] * 9 + [0]) for n in (q, g))
    arguments = {
        "q_features": floats(r, (q, parts, d), dtype),
        "q_weights": floats(r, (q, parts), r.choice(FLOATS)),
        "g_features": floats(r, (g, parts, d), dtype),
        "g_weights": floats(r, (g, parts), r.choice(FLOATS)),
    }
    if r.random() < 0.2:
        arguments |= {"g_features": arguments["q_features"], "g_weights": arguments["q_weights"]}
    return arguments


def labelled(r: random.Random, n: int) -> Tensor:
    labels = integers(r, (n,), 0, max(1, n // r.choice([1, 2, 4])))
    labels = labels * r.choice([1, 1, -1, 2**40]) + r.choice([0, 0, -(2**62)])
    return laid_out(r, labels if r.random() < 0.8 else labels.to(torch.int32))


def rows(r: random.Random) -> int:
    return r.choice([0, 1, 2, 3, 5, 8, 9, 16, 17, 33, 65] + [270] * (r.random() < 0.02))


@draws("batch_hard", "batch_hard_triplet")
def batch_hard(r: random.Random) -> Arguments:
    n, d, dtype = rows(r), size(r), r.choice(FLOATS)
    arguments: Arguments = {
        "embeddings": floats(r, (n, d), dtype),
        "labels": labelled(r, n),
        "metric": r.choice(METRICS),
    }
    if r.random() < 0.4:
        m = rows(r) or r.choice([0, 1])
        arguments |= {"ref": floats(r, (m, d), dtype), "ref_labels": labelled(r, m)}
    return arguments


@draws("identity_hard", "dvdp")
def identity_hard(r: random.Random) -> Arguments:
    n = rows(r)
    return {
        "embeddings": floats(r, (n, size(r)), r.choice(FLOATS)),
        "labels": labelled(r, n),
        "metric": r.choice(METRICS),
    }


@draws("mined_distance")
def mined_distance(r: random.Random) -> Arguments:
    n, m, d, dtype = rows(r), rows(r), size(r), r.choice(FLOATS)
    ref = floats(r, (m, d), dtype) if r.random() < 0.5 else None
    count = n if ref is None else m
    index = integers(r, (r.choice([0, 1, 2, 3]), n), -1, count)
    if not count:
        index = torch.full_like(index, -1)
    if index.numel() and r.random() < 0.05:
        index.view(-1)[r.randrange(index.numel())] = r.choice([-2, count, 2**40, -(2**63)])
    return {
        "embeddings": floats(r, (n, d), dtype),
        "index": laid_out(r, index),
        "metric": r.choice(METRICS),
        "ref": ref,
    }


def features(r: random.Random) -> tuple[Tensor, Tensor]:
    q, g, d, dtype = size(r, 9), size(r), size(r), r.choice(FLOATS)
    q, g = (r.choice([n] * 15 + [0]) for n in (q, g))
    query, gallery = numbers(r, (q, d), dtype), numbers(r, (g, d), dtype)
    if q and g and r.random() < 0.5:  # in one unit, with duplicates
        gallery = query[integers(r, (g,), 0, q)] + numbers(r, (g, d), dtype) * r.choice([0, 0.1, 1])
    return laid_out(r, query), laid_out(r, gallery)


def starts(r: random.Random, rows: int, total: int) -> Tensor:
    inner = sorted(r.randint(0, total) for _ in range(rows - 1)) if rows else []
    start = torch.tensor([0, *inner, total][: rows + 1])
    if r.random() < 0.03:
        start[r.randrange(len(start))] = r.choice([-1, total + 1, 2**62])
    return laid_out(r, start)


def left_out(r: random.Random, rows: int, columns: int) -> tuple[Tensor, Tensor] | None:
    if r.random() < 0.5 or not rows:
        return None
    lists = [sorted(r.randrange(-2, columns + 3) for _ in range(r.choice([0, 1, 4]))) for _ in range(rows)]
    start = torch.tensor([0, *map(len, lists)]).cumsum(0)
    index = torch.tensor([item for each in lists for item in each], dtype=torch.int64)
    if r.random() < 0.03:
        index = index.flip(0)
    return laid_out(r, start), laid_out(r, index)


@draws("pair_distances")
def pair_distances(r: random.Random) -> Arguments:
    query, gallery = features(r)
    pairs = size(r) if len(query) and len(gallery) else 0
    row, index = (integers(r, (pairs,), 0, len(each)) for each in (query, gallery))
    if pairs and r.random() < 0.05:
        r.choice([row, index])[r.randrange(pairs)] = r.choice([-1, 1000, 2**62, -(2**63)])
    return {
        "query": query,
        "gallery": gallery,
        "row": laid_out(r, row),
        "index": laid_out(r, index),
        "metric": r.choice(RANKED),
    }


def positives(r: random.Random, queries: int, columns: int) -> Arguments:
    total = size(r) if queries else r.choice([0, 2])
    return {
        "start": starts(r, queries, total),
        "index": laid_out(r, integers(r, (total,), -1, columns + 2)),
        "left_out": left_out(r, queries, columns),
        "kept": mask(r, (columns,)),
    }


@draws("rank_counts")
def rank_counts(r: random.Random) -> Arguments:
    shape = batch(r), r.choice([0, 1, 5, 17, 40, 1030 if r.random() < 0.1 else 3])
    arguments = {"distances": floats(r, shape, r.choice(FLOATS)), **positives(r, *shape)}
    total = len(arguments["index"])
    distance = numbers(r, (total,), torch.float64)
    if total and arguments["distances"].numel():  # ties
        chosen = arguments["distances"].flatten().double()[integers(r, (total,), 0, shape[0] * shape[1])]
        distance = torch.where(torch.rand(total, generator=generator(r)) < 0.7, chosen, distance)
    return arguments | {"distance": laid_out(r, distance), "offset": r.choice([0, 0, 3, -5, 2**40])}


@draws("feature_rank_counts")
def feature_rank_counts(r: random.Random) -> Arguments:
    query, gallery = features(r)
    drawn = positives(r, len(query), len(gallery))
    if len(gallery):
        drawn["index"] = laid_out(r, integers(r, drawn["index"].shape, 0, len(gallery)))
    metric, start, index = r.choice(RANKED), drawn["start"], drawn["index"]
    row = (torch.arange(len(index)) >= start[1:, None]).sum(0).clamp(max=max(len(query) - 1, 0))

    def distance(backend: str) -> Tensor:
        """As documented: from `pair_distances`."""
        if not len(query) or not len(gallery):
            return torch.zeros(len(index), dtype=torch.float64)
        try:
            return ops.pair_distances(query, gallery, row, index, metric, backend=backend)
        except (TypeError, ValueError):
            return torch.zeros(len(index), dtype=torch.float64)

    return {"query": query, "gallery": gallery, **drawn, "metric": metric, "distance": distance}


@draws("top_k")
def top_k(r: random.Random) -> Arguments:
    query, gallery = features(r)
    return {
        "query": query,
        "gallery": gallery,
        "k": r.choice([1, 1, 2, 5, 60]),
        "metric": r.choice(RANKED),
        "left_out": left_out(r, len(query), len(gallery)),
        "kept": mask(r, (len(gallery),)),
    }


@draws("k_reciprocal")
def k_reciprocal(r: random.Random) -> Arguments:
    query, gallery = features(r)
    return {
        "query": query,
        "gallery": gallery,
        "k1": r.choice([1, 2, 3, 5, 20, 2**40]),
        "k2": r.choice([1, 2, 3, 6, 2**40]),
        "lambda_value": r.choice([0, 0.0, 0.3, 1, 1.0]),
    }


def spoil(r: random.Random, value: Any) -> Any:
    """Something else in the place of an argument; most of it is wrong."""
    anything = [
        *(None, "", "sum", "nonsense", 0, -1, 3, 2**70, 10**400, 1.5, torch.nan, True, b"cosine", [], [1.0]),
        *({}, object, np.ones(3), np.int64(2), np.float32(1), torch.tensor(1), torch.ones(2, 2)),
    ]
    if not isinstance(value, Tensor) or r.random() < 0.3:
        return r.choice(anything)
    kind = r.randrange(12)
    if kind == 0:
        return value.to(r.choice([torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64]))
    if kind == 1:
        return value.to(r.choice([*FLOATS, torch.float8_e4m3fn, torch.complex128]))
    if kind == 2:
        return value.to("meta")
    if kind == 3:
        return value[None]
    if kind == 4:
        return value[0] if value.dim() and len(value) else value.sum()
    if kind == 5:
        return value.unsqueeze(-1)
    if kind == 6 and value.dim():
        axis = r.randrange(value.dim())
        return torch.cat([value, value.narrow(axis, 0, min(1, value.shape[axis]))], axis)
    if kind == 7 and value.dim():
        return value.narrow(r.randrange(value.dim()), 0, 0)
    if kind == 8 and not value.is_neg():
        return value.to_sparse()
    if kind == 9:
        return value.tolist()
    if kind == 10 and value.dtype != torch.bfloat16:
        return value.resolve_neg().numpy()
    return value.flatten()


def draw_call(r: random.Random, op: str | None = None) -> Call:
    op = op or r.choice(list(DRAWN))
    arguments = DRAWN[op](r)
    if op == "batch_hard_triplet":
        arguments["margin"] = r.choice([0.3, 0.0, "soft", 2, 1e30])
    if op == "identity_hard":
        arguments = {
            ("attributes" if name == "embeddings" else name): value for name, value in arguments.items()
        }
        arguments["include_self"] = r.random() < 0.5
    call = Call(
        op, arguments, r.choice(["plain"] * 8 + ["no_grad", "inference", "subclass"]), seed=r.getrandbits(32)
    )
    if r.random() < 0.2:
        call.spoiled = r.choice(
            [name for name in arguments if name not in ("distance", "generator")] + ["backend"]
        )
        if call.spoiled == "backend":
            arguments["backend"] = r.choice(
                ["", "nonsense", None, 3, b"native", ["native"], np.ones(2), torch.ones(2)]
            )
        elif call.spoiled == "left_out" and arguments["left_out"] is not None:
            pair = list(arguments["left_out"])
            which = r.randrange(2)
            pair[which] = spoil(r, pair[which])
            arguments["left_out"] = r.choice([tuple(pair), pair, pair[which]])
        else:
            arguments[call.spoiled] = spoil(r, arguments[call.spoiled])
    if r.random() < 0.02:
        for name, value in arguments.items():
            if isinstance(value, Tensor):
                arguments[name] = value.to("meta")
        call.spoiled = "device"
    if call.mode == "plain" or call.mode == "subclass":
        call.leaves = [n for n, v in arguments.items() if differentiable(v) and r.random() < 0.7]
    return call


def differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in FLOATS and value.layout == torch.strided


# What comes of a call ------------------------------------------------------------------------------------


class FindingError(Exception):
    """What must not happen."""


class Subclass(Tensor):
    """A tensor type of somebody else, which takes the way through torch's dispatcher."""


@dataclass
class Outcome:
    """Outputs and gradients, or an error."""

    outputs: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    error: Exception | None = None


# The argument in whose precision an op computes, where others may have another.
LEADING = {"fuse": "x", "region_pool": "x", "temporal_pool": "features", "part_distance": "q_features"}


def widened(call: Call) -> Call:
    """The call in float64, from the numbers that the op computes with."""

    def wide(value: Any) -> Any:
        if not differentiable(value):
            return value
        leading = call.arguments[LEADING[call.op]] if call.op in LEADING else value
        return (
            value if value is leading else value.to(torch.promote_types(leading.dtype, torch.float32))
        ).double()

    return replace(call, arguments={name: wide(value) for name, value in call.arguments.items()})


def run(call: Call, backend: str) -> Outcome:
    arguments: Arguments = {"backend": backend}
    for name, value in call.arguments.items():
        if callable(value) and value is not object:
            value = value(backend) if name == "distance" else value()
        arguments[name] = value
    for name in call.leaves:
        arguments[name] = arguments[name].detach().requires_grad_()
    leaves = [arguments[name] for name in call.leaves]
    if call.mode == "subclass":
        arguments = {n: v.as_subclass(Subclass) if differentiable(v) else v for n, v in arguments.items()}
    modes = {"no_grad": torch.no_grad, "inference": torch.inference_mode}
    try:
        with modes.get(call.mode, torch.enable_grad)():
            result = getattr(ops, call.op)(**arguments)
            if call.op == "k_reciprocal":
                result = result.rows(0, result.shape[0])
    except Exception as error:
        return Outcome(error=error)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    outputs = [y.as_subclass(Tensor) for y in outputs]
    r = random.Random(call.seed)
    chosen, upstream = [], []
    for y in outputs:
        # In few digits, so that they are the same numbers in every dtype.
        u = torch.randn(y.shape, generator=generator(r)).bfloat16().to(y)
        if r.random() < 0.3 and u.numel():
            u = u.reshape(-1)[0].expand(u.shape)
        if r.random() < 0.7 and y.requires_grad:
            chosen, upstream = [*chosen, y], [*upstream, u]
    if not leaves:
        return Outcome(outputs)
    if not chosen:
        return Outcome([y.detach() for y in outputs], [torch.zeros_like(leaf) for leaf in leaves])
    gradients = torch.autograd.grad(chosen, leaves, upstream, allow_unused=True, materialize_grads=True)
    return Outcome([y.detach() for y in outputs], list(gradients))


def stored(value: Any) -> Iterator[Tensor]:
    """The bytes behind the tensors of an argument."""
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, Tensor) and each.layout == torch.strided and each.device.type == "cpu":
            yield torch.empty(0, dtype=torch.uint8).set_(each.untyped_storage())


def named(error: Exception, call: Call) -> str | None:
    """The argument at the head of an error's message."""
    found = re.match(r"(\w+)(\[\d\]|\.shape\[\d\])?: ", str(error))
    known = inspect.signature(getattr(ops, call.op)).parameters
    return found[1] if found and found[1] in known else None


def as_good(
    got: Tensor,
    same: Tensor,
    exact: Tensor,
    kind: str,
    floor: float,
    overflows: bool = False,
    roundings: Callable[[], Iterable[Tensor]] = tuple,
    of_finite: bool = False,
) -> str | None:
    """What is wrong with a result, given the reference's in this dtype and in float64.

    Where both of these are finite, the error is at most twice that of the dtype's reference and 64 roundings
    of the largest number or of `floor`, or what `roundings` of the inputs make of the reference. What
    `overflows` need not be finite. A NaN `of_finite` numbers is a difference of infinities, of which a fused
    product may be one.
    """
    if (got.dtype, got.shape) != (same.dtype, same.shape):
        return f"{got.dtype}{list(got.shape)} for {same.dtype}{list(same.shape)}"
    if got.device.type == "meta" or not got.numel():
        return None
    if not got.is_floating_point():
        return None if torch.equal(got, same) else "differs"
    g, s, e = (each.as_subclass(Tensor).double() for each in (got, same, exact))
    finite = s.isfinite() & e.isfinite()
    in_place = g[s.isnan() & e.isnan()]
    if kind == "output" and not (~in_place.isfinite() if of_finite else in_place.isnan()).all():
        return "a number in the place of NaN"
    if kind == "gradient":
        # Which numbers an overflow reaches depends on the order of sums, but not which items.
        finite &= finite.flatten(1).all(1).view(-1, *[1] * (g.dim() - 1)) if g.dim() > 1 else finite.all()
    limits = torch.finfo(got.dtype)
    # A gradient as large as the root of the largest number has met its square on the way.
    if overflows or 64 * limits.eps * floor > limits.max or (kind == "gradient" and floor > limits.max**0.5):
        finite &= g.isfinite()
    if not g[finite].isfinite().all():
        return "not finite where the reference is"
    if not finite.any():
        return None
    rounding = limits.eps * max(float(e[finite].abs().max()), floor) + limits.smallest_normal * limits.eps
    allowed = 2 * float((s - e)[finite].abs().max()) + 64 * rounding
    worst = float((g - e)[finite].abs().max())
    if worst <= allowed:
        return None
    for p in roundings():
        spread = (p.double() - e)[finite].abs()
        allowed += float(spread.nan_to_num(torch.inf).max())
        if worst <= allowed:
            return None
    return f"off by {worst:.3g}, allowed {allowed:.3g}"


def rounded(call: Call, like: Tensor, kind: str, i: int) -> Iterator[Tensor]:
    """What the reference makes of inputs whose last digit is another."""
    for seed in range(8):
        r = torch.Generator().manual_seed(seed)

        def nudge(value: Any, r: torch.Generator = r) -> Any:
            if not differentiable(value):
                return value
            step = torch.randint(-1, 2, value.shape, generator=r)
            return torch.where(step == 0, value, value * (1 + step * torch.finfo(value.dtype).eps)).to(
                value.dtype
            )

        outcome = run(replace(call, arguments={n: nudge(v) for n, v in call.arguments.items()}), "reference")
        if outcome.error is None:
            yield getattr(outcome, kind)[i].to(like.dtype)


def judge(call: Call, backend: str, counts: Counter[str]) -> None:
    """Run a call in the reference and in another backend.

    Raises:
        FindingError: what is wrong.
    """
    before = [bytes_.clone() for value in call.arguments.values() for bytes_ in stored(value)]
    same, got = run(call, "reference"), run(call, backend)
    after = [bytes_ for value in call.arguments.values() for bytes_ in stored(value)]
    counts["calls"] += 2
    if not all(map(torch.equal, before, after)):
        raise FindingError("an input was changed")
    for name, outcome in (("reference", same), (backend, got)):
        error = outcome.error
        if error is None:
            continue
        if isinstance(error, RuntimeError) and str(error).startswith("backend="):
            counts["unavailable"] += 1
            if name == "reference":
                raise FindingError(str(error))
            return
        if not isinstance(error, (TypeError, ValueError)):
            raise FindingError(f"{name}: {type(error).__name__}: {error}") from error
        if named(error, call) is None:
            raise FindingError(f"{name}: no argument is named: {type(error).__name__}: {error}") from error
    # A GPU is not waited for, so that nobody looks at the numbers there.
    unseen = isinstance(same.error, NotFiniteError) or str(same.error).startswith("index: expected ")
    if same.error and not got.error and unseen and backend in ("triton", "cuda"):
        counts["unseen"] += 1
        return
    if same.error or got.error:
        # Squares of centred rows overflow later than those of rows as given, or in the other argument.
        given = [outcome.error for outcome in (same, got) if outcome.error]
        if all(isinstance(error, NotFiniteError) for error in given) and overflowing(call):
            counts["overflows"] += 2
            return
        if not (same.error and got.error):
            raise FindingError(f"reference {same.error or 'answers'}; {backend} {got.error or 'answers'}")
        kinds = [(isinstance(e, TypeError), named(e, call)) for e in (same.error, got.error)]
        if kinds[0] != kinds[1]:
            raise FindingError(f"reference {same.error}; {backend} {got.error}")
        counts["errors"] += 2
        return
    counts["answers"] += 2
    exact = run(widened(call), "reference")
    if exact.error:
        counts["without float64"] += 1
        exact = same
    compare(call, backend, [got, same, exact], counts)


# Outputs that say which rows were chosen; of rows equally far but for rounding, any may be.
CHOSEN = {"batch_hard": (2, 3), "identity_hard": (0, 1), "top_k": (1,)}


def compare(call: Call, backend: str, outcomes: list[Outcome], counts: Counter[str]) -> None:
    """An answer with the reference's in the same dtype and in float64."""
    compared = [("output", i) for i in range(len(outcomes[0].outputs)) if i not in CHOSEN.get(call.op, ())]
    tie = tied(call, backend, outcomes)
    if tie:
        counts["ties"] += 1
        if call.op == "sta_pool":
            compared = compared[1:]
        elif call.op == "k_reciprocal":
            compared = []
    elif not underflowing(call):
        compared += [("gradient", i) for i in range(len(outcomes[0].gradients))]
    y = max((magnitude(each) for each in outcomes[2].outputs), default=0.0)
    leaves = [call.arguments[name] for name in call.leaves]
    floats = [v for v in call.arguments.values() if differentiable(v) and v.device.type != "meta"]
    of_finite = all(bool(v.isfinite().all()) for v in floats)
    for kind, i in compared:
        got, same, exact = (getattr(outcome, f"{kind}s")[i] for outcome in outcomes)
        if call.op == "k_reciprocal":  # float32 or float64
            same = same.to(got.dtype)
        if call.op == "feature_rank_counts":
            same = exact = nearly_tied(call, got, same)
        if kind == "output":
            floor = least(call, tie)
        else:
            floor = 4 * max(1.0, y) * slope(call, leaves[i]) * coarser(call, got.dtype)
        others = partial(rounded, call, got, f"{kind}s", i)
        wrong = as_good(got, same, exact, kind, floor, overflowing(call), others, of_finite)
        if wrong:
            raise FindingError(f"{kind} {i}: {wrong}\ngot {got}\nreference {same}\nfloat64 {exact}")


def magnitude(x: Tensor) -> float:
    x = x.as_subclass(Tensor).detach().double()
    x = x[x.isfinite()] if x.device.type != "meta" else x[:0]
    return float(x.abs().max()) if x.is_floating_point() and x.numel() else 0.0


def coarser(call: Call, dtype: torch.dtype) -> float:
    """How much coarser than in `dtype` the roundings are, where another argument settles the precision."""
    if call.op not in LEADING:
        return 1.0
    computed = torch.promote_types(call.arguments[LEADING[call.op]].dtype, torch.float32)
    return max(1.0, torch.finfo(computed).eps / torch.finfo(dtype).eps)


def slope(call: Call, x: Tensor) -> float:
    """What roundings are multiplied with on the way back: ops of degree zero divide by the size of a frame
    or, for the cosine, of a row, and squares multiply.
    """
    if x.device.type == "meta":
        return 1.0
    metric, x = call.arguments.get("metric"), x.as_subclass(Tensor).detach().double().nan_to_num().abs()
    if metric == "squared":
        return max(1.0, magnitude(x))
    if call.op == "block_scores" and x.numel():
        x = x.unflatten(2, (call.arguments["blocks"], -1)).transpose(1, 2).flatten(0, 1)  # blocks, not frames
    sizes = x.flatten(2).amax(2) if x.dim() > 2 and x.numel() else x.norm(dim=1) if metric == "cosine" else x
    return max(1.0, 1 / float(sizes[sizes > 0].min())) if (sizes > 0).any() else 1.0


PAIRED = ("batch_hard", "batch_hard_triplet", "identity_hard", "dvdp", "mined_distance", "part_distance")


def embedded(call: Call) -> tuple[float, Any]:
    """The largest number that distances are taken of, and the limits of the dtype in which they are."""
    inputs = [
        value for name, value in call.arguments.items() if differentiable(value) and "weights" not in name
    ]
    dtype = torch.promote_types(inputs[0].dtype, torch.float32) if inputs else torch.float32
    return max(map(magnitude, inputs), default=0.0), torch.finfo(dtype)


def overflowing(call: Call) -> bool:
    """Whether squares, products or their sums may overflow; torch's norm of one number takes none."""
    if call.op == "fuse":
        x = call.arguments["x"]
        return magnitude(x) * magnitude(call.arguments["scores"]) > torch.finfo(x.dtype).max / 1e3
    largest, limits = embedded(call)
    return call.op in (*PAIRED, "attention_map", "sta_pool") and largest > limits.max**0.5 / 1e3


def underflowing(call: Call) -> bool:
    """Whether squares may underflow, and differences count as zero; torch's norm of one number takes none.

    A tiny number does so beside a zero, whatever the others are.
    """
    if call.op not in PAIRED:
        return False
    limit = embedded(call)[1].smallest_normal ** 0.5 * 1e3
    inputs = [v for v in call.arguments.values() if differentiable(v) and v.device.type != "meta"]
    sizes = [x.as_subclass(Tensor).detach().double().abs() for x in inputs]
    return any(bool(((x > 0) & (x < limit)).any()) for x in sizes)


def least(call: Call, tie: bool) -> float:
    """Numbers below which an op's outputs have no digits, over a rounding."""
    if call.arguments.get("metric") == "cosine" or call.op == "k_reciprocal":
        return 1.0
    largest, limits = embedded(call)
    if call.op in ("region_pool", "temporal_pool"):  # a softmax may leave out weights that are subnormal
        return limits.smallest_normal / limits.eps
    if call.op not in PAIRED:
        return 0.0
    smallest = limits.smallest_normal**0.5  # whose squares underflow
    if tie:  # candidates are compared by squares that are good to a rounding of the largest
        euclidean = call.arguments.get("metric") == "euclidean"
        smallest = max(smallest, largest * (limits.eps**0.5 if euclidean else limits.eps * largest))
    differences = 4 * (largest * largest if call.arguments.get("metric") == "squared" else largest)
    of_differences = call.op in ("batch_hard_triplet", "dvdp", "part_distance")
    return max(smallest / limits.eps, differences if of_differences else 0.0)


def nearly_tied(call: Call, got: Tensor, counts: Tensor) -> Tensor:
    """`got` in the places where distances that differ by a rounding explain it, else `counts`."""
    query, gallery, start = (call.arguments[name] for name in ("query", "gallery", "start"))
    distance = call.arguments["distance"]("reference")
    result = counts.clone()
    for p in (got != counts).nonzero()[:, 0].tolist():
        row = torch.full((len(gallery),), int((start <= p).sum()) - 1)
        others = ops.pair_distances(
            query, gallery, row, torch.arange(len(gallery)), call.arguments["metric"], backend="reference"
        )
        close = (others - distance[p]).abs() <= 1e-13 * distance[p].abs().clamp(min=1)
        if abs(int(got[p] - counts[p])) < int(close.sum()):
            result[p] = got[p]
    return result


def tied(call: Call, backend: str, outcomes: list[Outcome]) -> bool:
    """Whether rounding decided which rows, frames or neighbours were chosen.

    Raises:
        FindingError: something else did.
    """
    got, same, exact = (outcome.outputs for outcome in outcomes)
    if got and got[0].device.type == "meta":
        return False
    if call.op == "sta_pool":  # within a few roundings of the best score, and not the same number
        scores, eps = exact[1], torch.finfo(got[1].dtype).eps
        if not scores.numel():
            return False
        near = scores > scores.amax(1, keepdim=True) - 1e4 * eps
        return bool((near.sum(1) > 1).any())
    if call.op == "k_reciprocal":  # distances that differ by a rounding, and are not the same number
        rows = torch.cat([call.arguments["query"], call.arguments["gallery"]]).double()
        distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sort(1).values
        gap, apart = distance.diff(dim=1), torch.cdist(rows, rows, p=torch.inf)
        underflows = (apart > 0) & (apart < 1e-150 * apart.max())  # whose squares are not told from zero
        return bool(((gap > 0) & (gap < 1e-12 * distance[:, -1:])).any() or underflows.any())
    if call.op in ("batch_hard_triplet", "dvdp"):
        other, options = (
            ("batch_hard", ("margin",)) if call.op == "batch_hard_triplet" else ("identity_hard", ())
        )
        arguments = {name: value for name, value in call.arguments.items() if name not in options}
        if call.op == "dvdp":
            arguments["attributes"] = arguments.pop("embeddings")
        hidden = Call(other, arguments)
        return tied(
            hidden,
            backend,
            [run(hidden, backend), run(hidden, "reference"), run(widened(hidden), "reference")],
        )
    differ = False
    for i in CHOSEN.get(call.op, ()):
        if not torch.equal(got[i] < 0, same[i] < 0):
            raise FindingError(f"output {i}: got {got[i]}, reference {same[i]}")
        differ = differ or not torch.equal(got[i], same[i]) or not torch.equal(got[i], exact[i])
    if differ and call.op == "identity_hard":
        x, metric = call.arguments["attributes"].double(), call.arguments["metric"]
        values = [
            ops.mined_distance(x, torch.stack(each[:2]), metric=metric, backend="reference")
            for each in (got, same, exact)
        ]
        dtype = torch.promote_types(call.arguments["attributes"].dtype, torch.float32)
        wrong = as_good(
            *(v.to(dtype) for v in values[:2]), values[2], "output", least(call, True), overflowing(call)
        )
        if wrong:
            raise FindingError(f"distance of the chosen: {wrong}\n{values}")
    return differ


# Campaigns -----------------------------------------------------------------------------------------------


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fresh allocations are filled with NaN, so that an element no kernel writes shows."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)


def campaign(backend: str, seed: int, first: int, count: int, at: Path) -> None:
    """Judge calls, and print a line of JSON for each finding and the counts as the last one. The file `at`
    says which call is being made.
    """
    faulthandler.enable()
    torch.set_num_threads(1)
    if os.environ.get("VREID_FUZZ_KEPT"):  # small results, too, in memory that is used again
        memory._LARGE = 1
    counts: Counter[str] = Counter()
    with poisoned_memory(), at.open("wb", buffering=0) as place, warnings.catch_warnings(action="ignore"):
        for number in range(first, first + count):
            if number % 100 == 0:
                faulthandler.dump_traceback_later(HANG, exit=True)
            os.pwrite(place.fileno(), b"%20d" % number, 0)
            if str(number) == os.environ.get("VREID_FUZZ_DIES_AT"):
                os.abort()
            call = draw_call(random.Random(f"{seed} {number}"))
            try:
                judge(call, backend, counts)
            except Exception as error:
                what = str(error) if isinstance(error, FindingError) else traceback.format_exc()
                print(
                    json.dumps({"number": number, "op": call.op, "what": what, "call": str(call)}), flush=True
                )
    print(json.dumps(counts))


def some_calls(backend: str, names: list[str], floats: tuple[torch.dtype, ...], count: int) -> None:
    """Judge calls of a backend's ops in its dtypes."""
    global FLOATS
    FLOATS = floats
    with poisoned_memory(), warnings.catch_warnings(action="ignore"):
        for number in range(count):
            r = random.Random(f"{backend} {number}")
            call = draw_call(r, r.choice(names))
            try:
                judge(call, backend, Counter())
            except FindingError as error:
                raise AssertionError(f"{number}: {error}\n{call}") from error


HANG = 300  # seconds for a hundred calls


def supervised(
    backend: str, seed: int, first: int, count: int, folder: Path, **environment: str
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """The counts and findings of a campaign in processes of their own; one that dies is a finding."""
    counts: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    end, at = first + count, folder / "at"
    while first < end:
        command = [sys.executable, __file__, backend, *map(str, (seed, first, end - first, at))]
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode == 0:
            counts.update(lines.pop())
            first = end
        else:
            number = int(at.read_bytes())
            what = f"the process ended with {done.returncode}: {done.stderr[-2000:]}"
            lines.append(
                {"number": number, "what": what, "call": str(draw_call(random.Random(f"{seed} {number}")))}
            )
            counts["deaths"] += 1
            first = number + 1
        findings += lines
    return counts, findings


def report(findings: list[dict[str, Any]]) -> None:
    for finding in findings:
        print(finding["number"], finding["what"].partition("\n")[0])
    assert not findings, "\n\n".join(f"{f['number']}: {f['what']}\n{f['call']}" for f in findings[:5])


def test_every_op_is_drawn():
    public = {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}
    assert set(DRAWN) == public


@pytest.mark.parametrize("op", DRAWN)
@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_calls(op, r):
    with poisoned_memory(), warnings.catch_warnings(action="ignore"):
        judge(draw_call(r, op), "native", Counter())


def test_a_death_is_a_finding(tmp_path):
    counts, findings = supervised("native", 0, 0, 3, tmp_path, VREID_FUZZ_DIES_AT="1")
    assert [finding["number"] for finding in findings] == [1]
    assert "Fatal Python error: Aborted" in findings[0]["what"]
    assert (counts["deaths"], counts["calls"]) == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(40))
def test_a_million_calls(part, tmp_path):
    """Each instruction set in turn, with results in fresh memory and in memory used before."""
    count = int(os.environ.get("VREID_FUZZ_CALLS", 10**6)) // 80
    isas = backends.load("native").build_info()["usable_isas"]
    environment = {"VREID_ISA": isas[part % len(isas)], "VREID_FUZZ_KEPT": "1" if part % 2 else ""}
    seed = int(os.environ.get("VREID_FUZZ_SEED", "0"))
    counts, findings = supervised("native", seed, part * count, count, tmp_path, **environment)
    print(dict(counts), f"{len(findings)} findings", flush=True)
    report(findings)


if __name__ == "__main__":
    campaign(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
