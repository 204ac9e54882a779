"""The part metric. The kernel computes all parts and pairs of a call; it packs features a block at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import (
    DTYPE_CODES,
    PartGradient,
    PartSide,
    PartSizes,
    address,
    contiguous_rows,
)
from vreid_ext.backends.native import memory

# Rows and columns of a tile of pairs, and the maximum number of pairs of the parts that backward processes at
# a time. For these it stores two values per pair (16 MiB in float32).
_ROWS, _COLUMNS = 1024, 2048


def part_distance(args: signatures.PartDistance) -> tuple[Tensor, Tensor]:
    distance, distances = args.results(memory.empty)
    query, gallery = _features(args.q_features, args.q_weights), _features(args.g_features, args.g_weights)
    _native.part_distance(
        _sizes(query, gallery), _side(*query), _side(*gallery), address(distance),
        address(distances if distances.numel() else None), torch.get_num_threads(),
    )  # fmt: skip
    return distance, distances


def part_distance_backward(args: signatures.PartDistanceBackward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad, distances = contiguous_rows(args.grad), args.distances
    query, gallery = _features(args.q_features, args.q_weights), _features(args.g_features, args.g_weights)
    dquery, dgallery = (
        (memory.empty(features.shape, features.dtype), weights.new_empty(weights.shape))
        for features, weights in (query, gallery)
    )
    for rows, columns, parts in _blocks(len(grad), *gallery[0].shape[:2], whole=distances is not None):
        upstream = grad[rows, columns]
        own, other = _at(query, rows, parts), _at(gallery, columns, parts)
        sizes = _sizes(own, other)
        scratch = memory.empty((_native.part_distance_scratch(sizes),), grad.dtype)
        _native.part_distance_backward(
            sizes, _side(*own), _side(*other), address(upstream), upstream.stride(0), address(distances),
            _gradient(*_at(dquery, rows, parts), columns.start > 0),
            _gradient(*_at(dgallery, columns, parts), rows.start > 0),
            *dquery[0].stride()[:2], dquery[1].stride(0), address(scratch), torch.get_num_threads(),
        )  # fmt: skip
    (dq, dwq), (dg, dwg) = dquery, dgallery
    return dq.to(args.q_features.dtype), dwq, dg.to(args.g_features.dtype), dwg


_Side = tuple[Tensor, Tensor]


def _features(features: Tensor, weights: Tensor) -> _Side:
    """Features (n,R,D) in the dtype of the weights (n,R), both with contiguous rows."""
    features = features.to(weights.dtype)
    return features if features.stride(2) == 1 else features.contiguous(), contiguous_rows(weights)


def _sizes(query: _Side, gallery: _Side) -> PartSizes:
    rows, parts, dim = query[0].shape
    return PartSizes(DTYPE_CODES[query[0].dtype], parts, rows, len(gallery[0]), dim)


def _at(side: _Side, rows: slice, parts: slice) -> _Side:
    features, weights = side
    return features[rows, parts], weights[rows, parts]


def _side(features: Tensor, weights: Tensor) -> PartSide:
    row_stride, part_stride, _ = features.stride()
    return PartSide(address(features), row_stride, part_stride, address(weights), weights.stride(0))


def _gradient(features: Tensor, weights: Tensor, add: bool) -> PartGradient:
    return PartGradient(address(features), address(weights), add)


def _blocks(queries: int, items: int, parts: int, *, whole: bool) -> Iterator[tuple[slice, slice, slice]]:
    """Rows, columns and parts to process at a time; all of them if `whole`."""
    if whole:
        yield slice(0, queries), slice(0, items), slice(0, parts)
        return
    for rows in _slices(queries, _ROWS):
        for columns in _slices(items, _COLUMNS):
            pairs = (rows.stop - rows.start) * (columns.stop - columns.start)
            for some in _slices(parts, max(1, _ROWS * _COLUMNS // pairs)):
                yield rows, columns, some


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
