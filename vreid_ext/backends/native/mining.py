"""Hardest pairs: torch's matrix product makes strips of products, a kernel keeps the winners of each."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends.addresses import DTYPE_CODES, address, adjacent, dense, rows
from vreid_ext.backends.errors import NotFiniteError
from vreid_ext.backends.native import memory
from vreid_ext.precision import accumulator, widened

_METRICS = {"euclidean": 0, "squared": 1, "cosine": 2}  # MiningMetric in csrc/common/types.h

# Rows of a strip: enough for the product to run at full speed, few enough for the strip to stay in the cache.
_HEIGHT = 256

# A product of rows as they are is good enough while their squares are at most this many times their spread.
_OFF_CENTRE = 8


def batch_hard(
    x: Tensor, labels: Tensor, ref: Tensor | None, ref_labels: Tensor | None, metric: str
) -> tuple[Tensor, Tensor]:
    index = None
    if ref is None and len(x) <= _HEIGHT and metric != "cosine":
        index = _mine_small(x, labels)
    if index is None:
        index = _mine(x, labels, ref, ref_labels, centre=metric != "cosine")
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
    _native.triplet(
        DTYPE_CODES[distance.dtype], distance.shape[1], address(distance), address(index), margin, soft,
        address(loss), address(slope),
    )  # fmt: skip
    return loss, slope, distance, index


def mined_distance(x: Tensor, ref: Tensor | None, index: Tensor, metric: str) -> Tensor:
    x, ref, index = adjacent(x), None if ref is None else adjacent(ref), index.contiguous()
    distance = torch.empty(index.shape, dtype=accumulator(x.dtype))
    _native.mined_distance(
        rows(x), rows(ref), address(index), len(index), _METRICS[metric], address(distance),
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
    x, ref = adjacent(x), None if ref is None else adjacent(ref)
    inputs = [dense(each) for each in (index, grad, distance)]
    dx = memory.empty(x.shape if with_x else (0,), x.dtype)
    dref = memory.empty(ref.shape if ref is not None and with_ref else (0,), x.dtype)
    _native.mined_distance_backward(
        rows(x), rows(ref), address(inputs[0]), len(index), _METRICS[metric], *map(address, inputs[1:]),
        address(dx), address(dref), torch.get_num_threads(),
    )  # fmt: skip
    return dx, dref


def identity_hard(x: Tensor, labels: Tensor, metric: str, include_self: bool) -> Tensor:
    x, labels = adjacent(x), labels.contiguous()
    order = labels.argsort(stable=True)
    index = labels.new_empty((2, len(x)))
    _native.identity_hard(
        rows(x), address(labels), address(order), _METRICS[metric], include_self, address(index),
        torch.get_num_threads(),
    )  # fmt: skip
    return index


def _mine_small(x: Tensor, labels: Tensor) -> Tensor | None:
    """Index (2,n) of a batch that is one strip, from the products of the rows as they are.

    None if the rows lie too far from the origin for that, or are not finite.
    """
    x, labels = widened(x), labels.contiguous()
    n = len(x)
    products = torch.mm(x, x.T, out=x.new_empty(n, n))  # `out`: autocast leaves it alone
    index = torch.empty((2, n), dtype=torch.int64)
    done = _native.mine_gram(
        DTYPE_CODES[x.dtype], n, address(products), address(labels), _OFF_CENTRE, address(index),
        torch.get_num_threads(),
    )  # fmt: skip
    return index if done else None


def _mine(
    x: Tensor, labels: Tensor, ref: Tensor | None, ref_labels: Tensor | None, *, centre: bool
) -> Tensor:
    """Index (2,n), strip by strip, from rows less their mean or divided by their norms."""
    acc = accumulator(x.dtype)
    offset = torch.empty(x.shape[1], dtype=acc) if centre else None
    anchors, row_square = _prepare("embeddings", x, offset, mean_first=True)
    if ref is None or ref_labels is None:
        candidates, column_square = anchors, row_square
        row_id = column_id = _ids(labels, acc)
    else:
        candidates, column_square = _prepare("ref", ref, offset, mean_first=False)
        row_id, column_id = _ids(torch.cat([labels, ref_labels]), acc).split([len(x), len(ref)])
    n, m = len(anchors), len(candidates)
    score = torch.full((2, n), -torch.inf, dtype=acc)
    index = torch.full((2, n), -1)
    described = [address(each) for each in (row_id, column_id, row_square, column_square)]
    strip = torch.empty(min(n, _HEIGHT) * m, dtype=acc)
    for start in range(0, n, _HEIGHT):
        height, left = min(_HEIGHT, n - start), start if ref is None else 0  # distances are symmetric
        products = strip[: height * (m - left)].view(height, m - left)
        torch.mm(anchors[start : start + height], candidates[left:].T, out=products)
        _native.mine_tile(
            DTYPE_CODES[acc], address(products), n, m, start, height, left, *described, ref is None,
            address(score), address(index), torch.get_num_threads(),
        )  # fmt: skip
    return index


def _prepare(name: str, x: Tensor, offset: Tensor | None, *, mean_first: bool) -> tuple[Tensor, Tensor]:
    """Rows ready for the product and their squared norms: less `offset`, or divided by their norms.

    With `mean_first` the mean of x is put into offset before.
    """
    x = adjacent(x)
    acc = accumulator(x.dtype)
    prepared, square = memory.empty(x.shape, acc), torch.empty(len(x), dtype=acc)
    bad = _native.prepare_rows(
        rows(x), address(offset), mean_first and offset is not None, address(prepared), address(square),
        torch.get_num_threads(),
    )  # fmt: skip
    if bad >= 0:
        raise NotFiniteError(name, bad)
    return prepared, square


def _ids(labels: Tensor, acc: torch.dtype) -> Tensor:
    """Labels as integers of the width of `acc`, as the kernel compares them beside distances."""
    if acc == torch.float64:
        return labels.contiguous()
    ids = labels.to(torch.int32)
    if not torch.equal(ids.to(torch.int64), labels):  # some do not fit
        ids = torch.unique(labels, return_inverse=True)[1].to(torch.int32)
    return ids
