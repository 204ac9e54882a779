"""Hardest pairs: torch normalizes and sorts the rows, kernels process the pairs."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import (
    DTYPE_CODES,
    METRIC_CODES,
    MineSide,
    address,
    contiguous_rows,
    dense,
    rows,
)
from vreid_ext.backends.cuda.launch import Operand, halves, queue, split_rows


def batch_hard(args: signatures.BatchHard) -> tuple[Tensor, Tensor]:
    anchors = candidates = _side(args.x, args.x, args.labels, args.metric)
    if args.ref is not None and args.ref_labels is not None:
        candidates = _side(args.ref, args.x, args.ref_labels, args.metric)
    (operand, labels), (others, other_labels) = anchors, candidates
    key = labels.new_full((2, len(labels)), torch.iinfo(torch.int64).min)
    index = torch.empty_like(key)
    _cuda.batch_hard(
        DTYPE_CODES[torch.float32 if _in_pairs(args.x, args.metric) else args.x.dtype],
        _description(operand, labels), _description(others, other_labels), args.ref is None, address(key),
        address(index), *queue(args.x),
    )  # fmt: skip
    return mined_distance(signatures.MinedDistance(args.x, args.ref, index, args.metric)), index


def batch_hard_triplet(args: signatures.BatchHardTriplet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    distance, index = batch_hard(args.mining())
    loss, slope = distance.new_empty(()), torch.empty_like(distance)
    _cuda.triplet(
        distance.shape[1], address(distance), address(index), args.margin, args.soft, address(loss),
        address(slope), *queue(args.x),
    )  # fmt: skip
    return loss, slope, distance, index


def mined_distance(args: signatures.MinedDistance) -> Tensor:
    x, ref, index = contiguous_rows(args.x), contiguous_rows(args.ref), args.index.contiguous()
    scales = _scale(x, args.metric), _scale(ref, args.metric)
    distance = x.new_empty(index.shape, dtype=torch.float32)
    _cuda.mined_distance(
        rows(x), rows(ref), address(index), len(index), METRIC_CODES[args.metric], *map(address, scales),
        address(distance), *queue(x),
    )  # fmt: skip
    return distance


def mined_distance_backward(args: signatures.MinedDistanceBackward) -> tuple[Tensor, Tensor]:
    x, ref = contiguous_rows(args.x), contiguous_rows(args.ref)
    index, grad, distance = (dense(each) for each in (args.index, args.grad, args.distance))
    scales = _scale(x, args.metric), _scale(ref, args.metric)
    candidates = x if ref is None else ref
    order = begin = None
    if args.with_ref if ref is not None else args.with_x:
        # A stable sort, so that the pairs of a row are always added in the same order.
        ordered, order = index.flatten().sort(stable=True)
        begin = torch.searchsorted(ordered, torch.arange(len(candidates) + 1, device=x.device))
    dx = x.new_empty(x.shape if args.with_x else (0,))
    dref = x.new_empty(ref.shape if ref is not None and args.with_ref else (0,))
    for needed, of_ref, result in ((args.with_x, False, dx), (args.with_ref and ref is not None, True, dref)):
        if needed:
            _cuda.mined_distance_backward(
                rows(x), rows(ref), address(index), len(index), METRIC_CODES[args.metric],
                *map(address, (grad, distance, *scales, order, begin)), of_ref, address(result), *queue(x),
            )  # fmt: skip
    return dx, dref


def identity_hard(args: signatures.IdentityHard) -> Tensor:
    x, scale = contiguous_rows(args.x), _scale(args.x, args.metric)
    ordered, order = args.labels.contiguous().sort(stable=True)
    begin = torch.searchsorted(ordered, args.labels)
    end = torch.searchsorted(ordered, args.labels, right=True)
    index = args.labels.new_empty((2, len(x)))
    _cuda.identity_hard(
        rows(x), *map(address, (scale, order, begin, end)), METRIC_CODES[args.metric], args.include_self,
        address(index), *queue(x),
    )  # fmt: skip
    return index


def _in_pairs(x: Tensor, metric: str) -> bool:
    """Whether rows are split into pairs; halves are multiplied as they are if nothing is subtracted."""
    return x.dtype == torch.float32 or metric != "cosine"


def _side(x: Tensor, origin: Tensor, labels: Tensor, metric: str) -> tuple[Operand, Tensor]:
    """Rows for the product, and labels. For "cosine" their norms are one; otherwise the mean of `origin` is
    subtracted.
    """
    x, labels = contiguous_rows(x), labels.contiguous()
    if metric != "cosine":
        return split_rows(x, mean=origin.mean(0, dtype=torch.float32)), labels
    scale = _inverse(x.float())
    if _in_pairs(x, metric):
        return split_rows(x, scale=scale), labels
    return Operand(halves(x), scale, torch.zeros_like(scale)), labels


def _description(operand: Operand, labels: Tensor) -> MineSide:
    data, stride, width = operand.place
    return MineSide(data, len(labels), stride, width, *map(address, (operand.factor, operand.square, labels)))


def _scale(x: Tensor | None, metric: str) -> Tensor | None:
    return None if x is None or metric != "cosine" else _inverse(x.float())


def _inverse(x: Tensor) -> Tensor:
    """1 / norm of each row; 0 if its squares underflow, NaN if they overflow."""
    norm = torch.linalg.vector_norm(x, dim=1)
    least = torch.finfo(norm.dtype).smallest_normal ** 0.5
    return torch.where(norm < least, 0, norm - norm + 1 / norm)
