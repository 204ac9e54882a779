"""Judge a call of an op: the same result or the same error as the reference.

The result of a backend has to be that of the reference, in the dtype of the call or in float64, gradients
included, NaN where the reference has NaN. Or it is a `TypeError` or `ValueError` that names an argument, the
same from every backend. The inputs are unchanged.
"""

import inspect
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from fuzz.calls import Arguments, Call, differentiable, generator
from torch import Tensor

from vreid_ext import ops
from vreid_ext.backends.errors import NotFiniteError

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
            elif call.op == "jaccard_graph":
                result = dense(result)
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


def dense(graph: ops.JaccardGraph) -> Tensor:
    n = len(graph.start) - 1
    distances = graph.distance.new_ones(n, n)
    distances[torch.repeat_interleave(graph.start.diff()), graph.index] = graph.distance
    return distances


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
        if isinstance(error, RuntimeError) and str(error).startswith("backend: "):
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


RERANKED = ("k_reciprocal", "jaccard_graph")

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
        elif call.op in RERANKED:
            compared = []
    elif not underflowing(call):
        compared += [("gradient", i) for i in range(len(outcomes[0].gradients))]
    y = max((magnitude(each) for each in outcomes[2].outputs), default=0.0)
    leaves = [call.arguments[name] for name in call.leaves]
    floats = [v for v in call.arguments.values() if differentiable(v) and v.device.type != "meta"]
    of_finite = all(bool(v.isfinite().all()) for v in floats)
    for kind, i in compared:
        got, same, exact = (getattr(outcome, f"{kind}s")[i] for outcome in outcomes)
        if call.op in RERANKED:  # float32 or float64
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
    if call.arguments.get("metric") == "cosine" or call.op in RERANKED:
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
    if call.op in RERANKED:  # distances that differ by a rounding, and are not the same number
        names = [name for name in ("query", "gallery", "features") if name in call.arguments]
        rows = torch.cat([call.arguments[name] for name in names]).double()
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
