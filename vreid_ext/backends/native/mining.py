"""Hardest pairs: a kernel computes products of prepared rows tile by tile and keeps the best pairs."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends.addresses import DTYPE_CODES, METRIC_CODES, address, contiguous_rows, dense, rows
from vreid_ext.backends.errors import NotFiniteError
from vreid_ext.backends.native import memory, product
from vreid_ext.precision import accumulator


def batch_hard(
    x: Tensor, labels: Tensor, ref: Tensor | None, ref_labels: Tensor | None, metric: str
) -> tuple[Tensor, Tensor]:
    """Distances and indices (2,n) of the hardest pairs, from centered or, for "cosine", normalized rows."""
    x, ref = contiguous_rows(x), None if ref is None else contiguous_rows(ref)
    labels, ref_labels = labels.contiguous(), dense(ref_labels)
    acc = accumulator(x.dtype)
    (n, d), m = x.shape, 0 if ref is None else len(ref)
    # In a block of the size of the gradient, which takes the same block afterwards.
    packed = memory.empty((product.packed_size(n, d, acc) + product.packed_size(m, d, acc),), acc)
    numbers = torch.empty(d + 2 * (n + m), dtype=acc, device="cpu")
    distance = torch.empty((2, n), dtype=acc, device="cpu")
    index = torch.empty((2, n), dtype=torch.int64, device="cpu")
    # One call for all steps: for a small batch, a call from Python takes as long as a step.
    result = _native.batch_hard(
        rows(x), rows(ref), address(labels), address(ref_labels), METRIC_CODES[metric], packed.data_ptr(),
        numbers.data_ptr(), index.data_ptr(), distance.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if result == _native.WIDE_LABELS:  # some labels do not fit into 32 bits
        both = labels if ref_labels is None else torch.cat([labels, ref_labels])
        small = torch.unique(both, return_inverse=True)[1].split([n, m])
        return batch_hard(x, small[0], ref, None if ref is None else small[1], metric)
    if result >= 0:
        raise NotFiniteError("embeddings", result) if result < n else NotFiniteError("ref", result - n)
    return distance, index


def batch_hard_triplet(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    metric: str,
    margin: float,
    soft: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    distance, index = batch_hard(x, labels, ref, ref_labels, metric)
    loss, slope = distance.new_empty(()), torch.empty_like(distance)
    _native.triplet(
        DTYPE_CODES[distance.dtype], distance.shape[1], address(distance), address(index), margin, soft,
        address(loss), address(slope),
    )  # fmt: skip
    return loss, slope, distance, index


def mined_distance(x: Tensor, ref: Tensor | None, index: Tensor, metric: str) -> Tensor:
    x, ref, index = contiguous_rows(x), None if ref is None else contiguous_rows(ref), index.contiguous()
    distance = torch.empty(index.shape, dtype=accumulator(x.dtype), device="cpu")
    _native.mined_distance(
        rows(x), rows(ref), address(index), len(index), METRIC_CODES[metric], address(distance),
        torch.get_num_threads(),
    )  # fmt: skip
    return distance


def mined_distance_backward(
    grad: Tensor,
    x: Tensor,
    ref: Tensor | None,
    index: Tensor,
    distance: Tensor,
    metric: str,
    with_x: bool,
    with_ref: bool,
) -> tuple[Tensor, Tensor]:
    x, ref = contiguous_rows(x), None if ref is None else contiguous_rows(ref)
    inputs = [dense(each) for each in (index, grad, distance)]
    dx = memory.empty(x.shape if with_x else (0,), x.dtype)
    dref = memory.empty(ref.shape if ref is not None and with_ref else (0,), x.dtype)
    _native.mined_distance_backward(
        rows(x), rows(ref), address(inputs[0]), len(index), METRIC_CODES[metric], *map(address, inputs[1:]),
        address(dx), address(dref), torch.get_num_threads(),
    )  # fmt: skip
    return dx, dref


def identity_hard(x: Tensor, labels: Tensor, metric: str, include_self: bool) -> Tensor:
    x, labels = contiguous_rows(x), labels.contiguous()
    order = labels.argsort(stable=True)
    index = labels.new_empty((2, len(x)))
    _native.identity_hard(
        rows(x), address(labels), address(order), METRIC_CODES[metric], include_self, address(index),
        torch.get_num_threads(),
    )  # fmt: skip
    return index
