"""Hardest pairs: torch normalizes and sorts the rows, kernels process the pairs."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends.addresses import METRIC_CODES, address, contiguous_rows, rows
from vreid_ext.backends.cuda.launch import in_float, queue


def batch_hard(
    x: Tensor, labels: Tensor, ref: Tensor | None, ref_labels: Tensor | None, metric: str
) -> tuple[Tensor, Tensor]:
    anchors, square = _prepared(x, x, metric)
    candidates, labels = anchors, labels.contiguous()
    candidate_labels = labels
    if ref is not None and ref_labels is not None:
        candidates, square = _prepared(ref, x, metric)
        candidate_labels = ref_labels.contiguous()
    n, m = len(anchors), len(candidates)
    index = labels.new_empty((2, n))
    splits = _cuda.mine_splits(n, m)
    scratch = anchors.new_empty((splits, 2, n)), labels.new_empty((splits, 2, n))
    _cuda.batch_hard(
        n, m, anchors.shape[1], *map(address, (anchors, candidates, square, labels, candidate_labels)),
        ref is None, splits, *map(address, (*scratch, index)), *queue(x),
    )  # fmt: skip
    return mined_distance(x, ref, index, metric), index


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
    _cuda.triplet(
        distance.shape[1], address(distance), address(index), margin, soft, address(loss), address(slope),
        *queue(x),
    )  # fmt: skip
    return loss, slope, distance, index


def mined_distance(x: Tensor, ref: Tensor | None, index: Tensor, metric: str) -> Tensor:
    x, ref, index = contiguous_rows(x), None if ref is None else contiguous_rows(ref), index.contiguous()
    scales = _scale(x, metric), _scale(ref, metric)
    distance = x.new_empty(index.shape, dtype=torch.float32)
    _cuda.mined_distance(
        rows(x), rows(ref), address(index), len(index), METRIC_CODES[metric], *map(address, scales),
        address(distance), *queue(x),
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
    index, grad, distance = index.contiguous(), grad.contiguous(), distance.contiguous()
    scales = _scale(x, metric), _scale(ref, metric)
    candidates = x if ref is None else ref
    order = begin = None
    if with_ref if ref is not None else with_x:
        # A stable sort, so that the pairs of a row are always added in the same order.
        ordered, order = index.flatten().sort(stable=True)
        begin = torch.searchsorted(ordered, torch.arange(len(candidates) + 1, device=x.device))
    dx = x.new_empty(x.shape if with_x else (0,))
    dref = x.new_empty(ref.shape if ref is not None and with_ref else (0,))
    for needed, of_ref, result in ((with_x, False, dx), (with_ref and ref is not None, True, dref)):
        if needed:
            _cuda.mined_distance_backward(
                rows(x), rows(ref), address(index), len(index), METRIC_CODES[metric],
                *map(address, (grad, distance, *scales, order, begin)), of_ref, address(result), *queue(x),
            )  # fmt: skip
    return dx, dref


def identity_hard(x: Tensor, labels: Tensor, metric: str, include_self: bool) -> Tensor:
    x, scale = contiguous_rows(x), _scale(x, metric)
    ordered, order = labels.contiguous().sort(stable=True)
    begin = torch.searchsorted(ordered, labels)
    end = torch.searchsorted(ordered, labels, right=True)
    index = labels.new_empty((2, len(x)))
    _cuda.identity_hard(
        rows(x), *map(address, (scale, order, begin, end)), METRIC_CODES[metric], include_self,
        address(index), *queue(x),
    )  # fmt: skip
    return index


def _prepared(x: Tensor, origin: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Rows for the matrix product (see `in_float`), and the offsets `square` (n,) of square - 2 product.

    For "cosine" the rows are L2-normalized and the offsets are zero. Otherwise the mean of `origin` is
    subtracted from the rows, and the offsets are their squared norms.
    """
    rows = x.float()
    if metric == "cosine":
        rows = rows * _inverse(rows)[:, None]
        square = rows.new_zeros(len(rows))
    else:
        rows = rows - origin.float().mean(0)
        square = rows.square().sum(1)
    return in_float(rows), square


def _scale(x: Tensor | None, metric: str) -> Tensor | None:
    return None if x is None or metric != "cosine" else _inverse(x.float())


def _inverse(x: Tensor) -> Tensor:
    """1 / norm of each row; 0 if its squares underflow, NaN if they overflow."""
    norm = torch.linalg.vector_norm(x, dim=1)
    least = torch.finfo(norm.dtype).smallest_normal ** 0.5
    return torch.where(norm < least, 0, norm - norm + 1 / norm)
