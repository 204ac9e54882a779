"""Calls of every op with unusual shapes, strides, numbers and arguments, drawn from a random generator."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vreid_ext import ops

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


@draws("jaccard_graph")
def jaccard_graph(r: random.Random) -> Arguments:
    k_reciprocal = {name: r.choice([1, 2, 3, 5, 20, 2**40]) for name in ("k1", "k2")}
    return {"features": torch.cat(features(r)), **k_reciprocal, "limit": r.choice([1, 1.0])}


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


def differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in FLOATS and value.layout == torch.strided


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
