"""Launches of the mining kernels; norms, means and sorts by torch. For the ops see `vreid_ext.ops.mining`."""

from math import ceil

import torch
from torch import Tensor

from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import contiguous_rows
from vreid_ext.backends.triton import mining_kernels as kernels
from vreid_ext.backends.triton.configs import (
    MINING_ANCHORS,
    MINING_D,
    MINING_N,
    PRODUCT_GROUP,
    chosen,
)
from vreid_ext.backends.triton.launch import launch, on_device


def batch_hard(args: signatures.BatchHard) -> tuple[Tensor, Tensor]:
    x, ref, n = contiguous_rows(args.x), contiguous_rows(args.ref), len(args.x)
    m = n if ref is None else len(ref)
    tile = chosen("mining", n * m, x.device)
    width = ceil(x.shape[1] / tile.BLOCK_K) * tile.BLOCK_K
    mean = None if args.metric == "cosine" else x.mean(0, dtype=torch.float32)
    keys = args.labels.new_empty((2, n))
    with on_device(x):
        anchors = candidates = (*_prepared(x, width, mean, keys), args.labels.contiguous())
        if ref is not None and args.ref_labels is not None:
            candidates = (*_prepared(ref, width, mean, None), args.ref_labels.contiguous())
        rows = ceil(n / tile.BLOCK_N)
        columns = ceil(m / tile.BLOCK_M)
        if ref is None:
            columns = (rows // 2 + 1) * (tile.BLOCK_N // tile.BLOCK_M)
        launch(
            kernels.mine, (rows * columns,),
            *anchors, *candidates, keys, n, m, width, SYMMETRIC=ref is None, GROUP=PRODUCT_GROUP,
            **tile._asdict(),
        )  # fmt: skip
        index = torch.empty_like(keys)
        return _pair_distances(x, ref, keys, index, args.metric), index


def batch_hard_triplet(args: signatures.BatchHardTriplet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    distance, index = batch_hard(args.mining())
    loss, slope = distance.new_empty(()), torch.empty_like(distance)
    with on_device(args.x):
        launch(
            kernels.triplet, (1,), distance, index, loss, slope, len(args.x), args.margin, SOFT=args.soft,
            BLOCK_N=MINING_ANCHORS,
        )  # fmt: skip
    return loss, slope, distance, index


def mined_distance(args: signatures.MinedDistance) -> Tensor:
    ref = contiguous_rows(args.ref)
    with on_device(args.x):
        return _pair_distances(contiguous_rows(args.x), ref, None, args.index.contiguous(), args.metric)


def mined_distance_backward(args: signatures.MinedDistanceBackward) -> tuple[Tensor, Tensor]:
    x, ref = contiguous_rows(args.x), contiguous_rows(args.ref)
    anchors = candidates = x, _norms(x, args.metric)
    if ref is not None:
        candidates = ref, _norms(ref, args.metric)
    pairs = [each.contiguous() for each in (args.grad, args.distance, args.index)]
    by_candidate: tuple[Tensor | None, Tensor | None] = None, None
    if ref is None or args.with_ref:
        chosen, order = pairs[2].flatten().sort(stable=True)
        rows = torch.arange(len(candidates[0]) + 1, device=x.device)
        by_candidate = order, torch.searchsorted(chosen, rows)
    dx = x.new_empty(x.shape if args.with_x else (0,))
    dref = x.new_empty(ref.shape if ref is not None and args.with_ref else (0,))
    with on_device(x):
        if args.with_x:
            sorted_pairs = by_candidate if ref is None else (None, None)
            _pair_gradients(dx, pairs, anchors, candidates, sorted_pairs, args.metric, choose=True)
        if len(dref):
            _pair_gradients(dref, pairs, candidates, anchors, by_candidate, args.metric, choose=False)
    return dx, dref


def identity_hard(args: signatures.IdentityHard) -> Tensor:
    x = contiguous_rows(args.x)
    identities, order = args.labels.sort(stable=True)
    begins = torch.searchsorted(identities, args.labels)
    ends = torch.searchsorted(identities, args.labels, right=True)
    index = args.labels.new_empty((2, len(x)))
    with on_device(x):
        launch(
            kernels.identity_extremes, (len(x),),
            x, _norms(x, args.metric), order, begins, ends, index, *x.shape, x.stride(0),
            **_flags(args.metric), SELF=args.include_self, BLOCK_N=MINING_N, BLOCK_D=MINING_D // MINING_N,
        )  # fmt: skip
    return index


def _prepared(x: Tensor, width: int, mean: Tensor | None, keys: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows for the matrix product, and the offsets `square` (n,) of square - 2 product.

    If `mean` is given, it is subtracted from the rows, and the offsets are their squared norms. Otherwise the
    rows are L2-normalized, and the offsets are zero. `keys` (skipped if None) are reset.
    """
    prepared = torch.empty((len(x), width), dtype=torch.float32, device=x.device)
    square = prepared.new_empty(len(x))
    launch(
        kernels.prepare_rows, (len(x),),
        x, mean, prepared, square, keys, *x.shape, x.stride(0), width, BLOCK_D=MINING_D,
    )  # fmt: skip
    return prepared, square


def _pair_distances(x: Tensor, ref: Tensor | None, keys: Tensor | None, index: Tensor, metric: str) -> Tensor:
    distance = torch.empty(index.shape, dtype=torch.float32, device=x.device)
    others = x if ref is None else ref
    launch(
        kernels.pair_distances, index.shape[::-1],
        x, others, keys, index, distance, len(x), len(others), x.shape[1], x.stride(0), others.stride(0),
        **_flags(metric), BLOCK_D=MINING_D,
    )  # fmt: skip
    return distance


def _pair_gradients(
    result: Tensor,
    pairs: list[Tensor],
    rows: tuple[Tensor, Tensor | None],
    others: tuple[Tensor, Tensor | None],
    sorted_pairs: tuple[Tensor | None, Tensor | None],
    metric: str,
    *,
    choose: bool,
) -> None:
    """Write the gradient of `rows` to `result`: from the pairs in which they are anchors (if `choose`), and
    from `sorted_pairs`, the pairs in which they are candidates.
    """
    x, other = rows[0], others[0]
    size = x.shape[1]
    launch(
        kernels.pair_gradients, (len(x), ceil(size / MINING_D)),
        *pairs, *rows, *others, *sorted_pairs, result, *pairs[2].shape[::-1], len(other), size, x.stride(0),
        other.stride(0), CHOOSES=choose, **_flags(metric), BLOCK_D=MINING_D,
    )  # fmt: skip


def _norms(x: Tensor, metric: str) -> Tensor | None:
    return torch.linalg.vector_norm(x, dim=1, dtype=torch.float32) if metric == "cosine" else None


def _flags(metric: str) -> dict[str, bool]:
    return {"ROOT": metric == "euclidean", "COSINE": metric == "cosine"}
