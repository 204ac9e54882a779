"""Ops and sizes of the GPU report: calls, baselines, and minimum memory traffic and operations."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec

import torch
from baselines_mining import cdist, metric_learning
from baselines_region import matmul as region_matmul
from baselines_sta import block_sums, naive
from torch import Tensor

from vreid_ext import ops

Function = Callable[..., Tensor]


@dataclass
class Case:
    """One op at one size.

    Attributes:
        ours: backend name -> the op as a function of the inputs, with a single result.
        baselines: the same function in plain torch or in other packages.
        compiled: name of the baseline that is also run with `torch.compile`.
        read: bytes that the forward pass must read at least. Forward + backward must read twice and write
            once as much.
        product: floating-point operations of the forward pass.
        backward: whether forward + backward is timed, too.
    """

    op: str
    size: str
    inputs: tuple[Tensor, ...]
    ours: Callable[[str], Function]
    baselines: dict[str, Function] = field(default_factory=dict)
    compiled: str | None = None
    read: int = 0
    product: int = 0
    backward: bool = True


def cases(device: str, tiny: bool = False) -> Iterator[Case]:
    """All cases, the most important ones first. `tiny`: small sizes, to check that everything runs."""
    dtypes = [torch.bfloat16, torch.float32]
    for dtype in dtypes:
        for layout in ("channels_last", "contiguous"):
            yield _sta_pool(device, dtype, layout, tiny)
    for n, dim in ((8, 16), (12, 16)) if tiny else ((64, 2048), (2048, 2048), (16384, 512)):
        yield _batch_hard(device, n, dim)
    for dtype in dtypes:
        yield _region_pool(device, dtype, tiny)
    yield _attention_map(device, tiny)
    yield _fuse(device, tiny)
    yield _identity_hard(device, tiny)
    yield _part_distance(device, tiny)
    yield _rank_counts(device, tiny)


def metric_learning_is_installed() -> bool:
    return find_spec("pytorch_metric_learning") is not None


def _maps(device: str, dtype: torch.dtype, layout: str, tiny: bool) -> tuple[Tensor, str]:
    shape = (2, 2, 8, 8, 4) if tiny else (16, 4, 2048, 16, 8)
    x = torch.randn(shape, device=device).relu().to(dtype)
    if layout == "channels_last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    return x, f"{'x'.join(map(str, shape))} {str(dtype)[6:]} {layout}"


def _sta_pool(device: str, dtype: torch.dtype, layout: str, tiny: bool) -> Case:
    x, size = _maps(device, dtype, layout, tiny)
    return Case(
        "sta_pool",
        size,
        (x,),
        lambda name: lambda x: ops.sta_pool(x, 4, backend=name).pooled,
        {"eager": lambda x: naive(x, 4), "eager, block sums": lambda x: block_sums(x, 4)},
        compiled="eager, block sums",
        read=x.nbytes,
    )


def _batch_hard(device: str, n: int, dim: int) -> Case:
    x = torch.randn(n, dim, device=device)
    labels = torch.arange(n, device=device) // 4
    baselines: dict[str, Function] = {"eager": lambda x: cdist(x, labels)}
    if metric_learning_is_installed():
        loss = metric_learning()
        baselines["pytorch-metric-learning"] = lambda x: loss(x, labels)
    return Case(
        "batch_hard_triplet",
        f"{n}x{dim} float32",
        (x,),
        lambda name: lambda x: ops.batch_hard_triplet(x, labels, backend=name),
        baselines,
        compiled="eager" if n == 2048 else None,
        read=x.nbytes,
        product=2 * n * n * dim,
    )


def _region_pool(device: str, dtype: torch.dtype, tiny: bool) -> Case:
    x, size = _maps(device, dtype, "channels_last", tiny)
    logits = torch.randn(*x.shape[:2], 6, x.shape[3] * x.shape[4], device=device)
    return Case(
        "region_pool",
        f"{size} K=6",
        (logits, x),
        lambda name: lambda e, x: _both(*ops.region_pool(e, x, backend=name)[::2]),
        {"eager": lambda e, x: _both(*region_matmul(e.to(x.dtype), x))},
        compiled="eager",
        read=x.nbytes,
    )


def _both(features: Tensor, overlap: Tensor) -> Tensor:
    """Concatenate both results, so that the backward pass includes both."""
    return torch.cat([features.flatten(2).float(), overlap[..., None].float()], 2)


def _attention_map(device: str, tiny: bool) -> Case:
    x, size = _maps(device, torch.bfloat16, "channels_last", tiny)
    return Case(
        "attention_map",
        size,
        (x,),
        lambda name: lambda x: ops.attention_map(x, backend=name),
        {"eager": lambda x: ops.attention_map(x, backend="reference")},
        read=x.nbytes,
    )


def _fuse(device: str, tiny: bool) -> Case:
    x, size = _maps(device, torch.bfloat16, "channels_last", tiny)
    scores = torch.rand(*x.shape[:2], 4, device=device)
    return Case(
        "fuse",
        size,
        (x, scores),
        lambda name: lambda x, s: ops.fuse(x, s, backend=name),
        {"eager": lambda x, s: ops.fuse(x, s, backend="reference")},
        read=x.nbytes + 2 * x.nbytes // x.shape[1],
    )


def _identity_hard(device: str, tiny: bool) -> Case:
    n, dim = (12, 8) if tiny else (2048, 512)
    x, labels = torch.randn(n, dim, device=device), torch.arange(n, device=device) // 4
    return Case(
        "identity_hard",
        f"{n}x{dim} float32",
        (x,),
        lambda name: lambda x: ops.identity_hard(x, labels, backend=name).negative_index,
        {"eager": lambda x: ops.identity_hard(x, labels, backend="reference").negative_index},
        read=x.nbytes,
        backward=False,
    )


def _part_distance(device: str, tiny: bool) -> Case:
    queries, items, parts, dim = (4, 5, 2, 8) if tiny else (512, 4096, 6, 1024)
    sides = [
        tensor
        for n in (queries, items)
        for tensor in (torch.randn(n, parts, dim, device=device), torch.rand(n, parts, device=device))
    ]
    return Case(
        "part_distance",
        f"{queries}x{items}x{parts}x{dim} float32",
        tuple(sides),
        lambda name: lambda *each: ops.part_distance(*each, backend=name),
        {"eager": _part_cdist},
        read=sum(each.nbytes for each in sides) + 4 * queries * items,
        product=2 * queries * items * parts * dim,
    )


def _part_cdist(q: Tensor, q_weights: Tensor, g: Tensor, g_weights: Tensor) -> Tensor:
    weights = [torch.nn.functional.normalize(each, dim=1) for each in (q_weights, g_weights)]
    total = torch.zeros(len(q), len(g), device=q.device)
    for r in range(q.shape[1]):
        total = total + weights[0][:, r, None] * weights[1][:, r] * torch.cdist(q[:, r], g[:, r])
    return total


def _rank_counts(device: str, tiny: bool) -> Case:
    queries, items, positives = (4, 9, 2) if tiny else (1980, 9330, 14)
    distances = torch.rand(queries, items, device=device)
    start = torch.arange(0, queries * positives + 1, positives, device=device)
    index = torch.randint(items, (queries * positives,), device=device)
    row = torch.arange(queries, device=device).repeat_interleave(positives)
    distance = distances[row, index].double()

    def sorting(distances: Tensor) -> Tensor:
        """Rank of each positive, from a full sort of every row."""
        place = distances.argsort(dim=1, stable=True).argsort(dim=1)
        return place[row, index]

    return Case(
        "rank_counts",
        f"{queries}x{items}, {positives} positives",
        (distances,),
        # Ranks start at zero, so they are equal to the number of items before a positive.
        lambda name: lambda d: ops.rank_counts(d, start, index, distance, backend=name),
        {"eager": sorting},
        read=distances.nbytes,
        backward=False,
    )
