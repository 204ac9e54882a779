"""Hardest pairs: a kernel computes products of prepared rows tile by tile and keeps the best pairs."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import DTYPE_CODES, METRIC_CODES, address, contiguous_rows, dense, rows
from vreid_ext.backends.errors import NotFiniteError
from vreid_ext.backends.native import memory
from vreid_ext.precision import accumulator


def batch_hard(args: signatures.BatchHard) -> tuple[Tensor, Tensor]:
    """Distances and indices (2,n) of the hardest pairs, from centered or, for "cosine", normalized rows."""
    x, ref = contiguous_rows(args.x), contiguous_rows(args.ref)
    labels, ref_labels = args.labels.contiguous(), dense(args.ref_labels)
    n, acc, sides = len(x), accumulator(x.dtype), (rows(x), rows(ref))
    # For a large batch in a block of the size of the gradient, which takes the same block afterwards.
    packed = memory.empty((_native.batch_hard_packed(*sides),), acc)
    distance = torch.empty((2, n), dtype=acc, device="cpu")
    index = torch.empty((2, n), dtype=torch.int64, device="cpu")
    # One call for all steps: for a small batch, a call from Python takes as long as a step.
    result = _native.batch_hard(
        *sides, address(labels), address(ref_labels), METRIC_CODES[args.metric], packed.data_ptr(),
        index.data_ptr(), distance.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if result == _native.WIDE_LABELS:  # some labels do not fit into 32 bits
        both = labels if ref_labels is None else torch.cat([labels, ref_labels])
        small = torch.unique(both, return_inverse=True)[1].split([n, len(both) - n])
        return batch_hard(args._replace(labels=small[0], ref_labels=None if ref is None else small[1]))
    if result >= 0:
        raise NotFiniteError("embeddings", result) if result < n else NotFiniteError("ref", result - n)
    return distance, index


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
