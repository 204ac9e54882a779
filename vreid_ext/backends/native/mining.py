"""Hardest pairs: a kernel computes products of prepared rows tile by tile and keeps the best pairs."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import DTYPE_CODES, METRIC_CODES, address, contiguous_rows, dense, rows
from vreid_ext.backends.errors import NotFiniteError
from vreid_ext.backends.native import memory, product
from vreid_ext.precision import accumulator


def batch_hard(args: signatures.BatchHard) -> tuple[Tensor, Tensor]:
    index = _mine(args)
    return mined_distance(signatures.MinedDistance(args.x, args.ref, index, args.metric)), index


def batch_hard_triplet(args: signatures.BatchHardTriplet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    distance, index = batch_hard(args.mining())
    loss, slope = distance.new_empty(()), torch.empty_like(distance)
    _native.triplet(
        DTYPE_CODES[distance.dtype], distance.shape[1], address(distance), address(index), args.margin,
        args.soft, address(loss), address(slope),
    )  # fmt: skip
    return loss, slope, distance, index


def mined_distance(args: signatures.MinedDistance) -> Tensor:
    x, ref, index = contiguous_rows(args.x), contiguous_rows(args.ref), args.index.contiguous()
    distance = torch.empty(index.shape, dtype=accumulator(x.dtype), device="cpu")
    _native.mined_distance(
        rows(x), rows(ref), address(index), len(index), METRIC_CODES[args.metric], address(distance),
        torch.get_num_threads(),
    )  # fmt: skip
    return distance


def mined_distance_backward(args: signatures.MinedDistanceBackward) -> tuple[Tensor, Tensor]:
    x, ref = contiguous_rows(args.x), contiguous_rows(args.ref)
    inputs = [dense(each) for each in (args.index, args.grad, args.distance)]
    dx = memory.empty(x.shape if args.with_x else (0,), x.dtype)
    dref = memory.empty(ref.shape if ref is not None and args.with_ref else (0,), x.dtype)
    _native.mined_distance_backward(
        rows(x), rows(ref), address(inputs[0]), len(args.index), METRIC_CODES[args.metric],
        *map(address, (*inputs[1:], dx, dref)), torch.get_num_threads(),
    )  # fmt: skip
    return dx, dref


def identity_hard(args: signatures.IdentityHard) -> Tensor:
    x, labels = contiguous_rows(args.x), args.labels.contiguous()
    order = labels.argsort(stable=True)
    index = labels.new_empty((2, len(x)))
    _native.identity_hard(
        rows(x), address(labels), address(order), METRIC_CODES[args.metric], args.include_self,
        address(index), torch.get_num_threads(),
    )  # fmt: skip
    return index


def _mine(args: signatures.BatchHard) -> Tensor:
    """Index (2,n) of the hardest pairs, from L2-normalized rows for "cosine", else from centered rows."""
    x, labels, ref, ref_labels, metric = args
    acc = accumulator(x.dtype)
    offset = None if metric == "cosine" else torch.empty(x.shape[1], dtype=acc, device="cpu")
    anchors, row_square = _prepare("embeddings", x, offset, mean_first=True)
    if ref is None or ref_labels is None:
        candidates, column_square = product.NO_PANELS, row_square
        row_id = column_id = _ids(labels, acc)
    else:
        packed, column_square = _prepare("ref", ref, offset, mean_first=False)
        candidates = packed.description()
        row_id, column_id = _ids(torch.cat([labels, ref_labels]), acc).split([len(x), len(ref)])
    index = torch.empty((2, len(x)), dtype=torch.int64, device="cpu")
    _native.mine(
        DTYPE_CODES[acc], anchors.description(), candidates,
        *map(address, (row_id, column_id, row_square, column_square, index)), torch.get_num_threads(),
    )  # fmt: skip
    return index


def _prepare(
    name: str, x: Tensor, offset: Tensor | None, *, mean_first: bool
) -> tuple[product.Panels, Tensor]:
    """Rows packed for the product, and their squared norms.

    The rows are x - offset, or L2-normalized if `offset` is None. With `mean_first` the mean of x is first
    written to `offset`.
    """
    x = contiguous_rows(x)
    acc = accumulator(x.dtype)
    n, d = x.shape
    prepared, square = product.panels(n, d, acc), torch.empty(n, dtype=acc, device="cpu")
    bad = _native.prepare_rows(
        rows(x), address(offset), mean_first and offset is not None, address(prepared.data), address(square),
        torch.get_num_threads(),
    )  # fmt: skip
    if bad >= 0:
        raise NotFiniteError(name, bad)
    return prepared, square


def _ids(labels: Tensor, acc: torch.dtype) -> Tensor:
    """Labels as integers of the width of `acc`; the kernel compares them in vectors of that width."""
    if acc == torch.float64:
        return labels.contiguous()
    ids = labels.to(torch.int32)
    if not torch.equal(ids.to(torch.int64), labels):  # some labels do not fit into 32 bits
        ids = torch.unique(labels, return_inverse=True)[1].to(torch.int32)
    return ids
