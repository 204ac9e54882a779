"""The part metric, computed in tiles of pairs with products that fit into the cache."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import DTYPE_CODES, PartSide, PartSizes, address, contiguous_rows
from vreid_ext.backends.native import memory, product

# Rows and columns of a tile of pairs, and the maximum number of pairs of the parts that backward processes at
# a time. For these it stores four values per pair (32 MiB in float32) and a copy of the features of the
# parts.
_ROWS, _COLUMNS = 1024, 2048


def part_distance(args: signatures.PartDistance) -> Tensor:
    distance = args.results().zero_()
    for tile in _tiles(*args):
        target = distance[tile.rows, tile.columns]
        _native.part_distance(*tile.description(), address(target), target.stride(0), torch.get_num_threads())
    return distance


def part_distance_backward(args: signatures.PartDistanceBackward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad, q_features, q_weights, g_features, g_weights = args
    grad = contiguous_rows(grad)
    dq, dg = (memory.empty(each.shape, q_weights.dtype).zero_() for each in (q_features, g_features))
    dwq, dwg = (q_weights.new_zeros(each.T.shape) for each in (q_weights, g_weights))
    for tile in _tiles(q_features, q_weights, g_features, g_weights):
        upstream = grad[tile.rows, tile.columns]
        together = max(1, _ROWS * _COLUMNS // upstream.numel())
        for parts in _slices(q_features.shape[1], together):
            features = dq[tile.rows, parts], dg[tile.columns, parts]
            weights = dwq[parts, tile.rows], dwg[parts, tile.columns]
            sizes, query, gallery = tile.of(parts).description()
            scratch = memory.empty((_native.part_distance_scratch(sizes),), grad.dtype)
            _native.part_distance_backward(
                sizes, query, gallery, address(upstream), upstream.stride(0),
                *map(address, features), *dq.stride()[:2],
                *map(address, weights), dwq.stride(0), dwg.stride(0), address(scratch),
                torch.get_num_threads(),
            )  # fmt: skip
    return dq.to(q_features.dtype), dwq.T.contiguous(), dg.to(g_features.dtype), dwg.T.contiguous()


class _Side(NamedTuple):
    """Queries or gallery items, restricted to P parts: features (P,n,D), squared norms (P,n), weights (P,n)
    and the packed features of each part.
    """

    features: Tensor
    squares: Tensor
    weights: Tensor
    panels: Tensor

    def of(self, parts: slice) -> "_Side":
        return _Side(*(each[parts] for each in self))

    def description(self) -> PartSide:
        part_stride, row_stride, _ = self.features.stride()
        squares, weights = address(self.squares), address(self.weights)
        return PartSide(
            address(self.features), row_stride, part_stride, squares, weights, self.squares.stride(0),
            address(self.panels),
        )  # fmt: skip


class _Tile(NamedTuple):
    """The pairs `rows` x `columns`."""

    rows: slice
    columns: slice
    query: _Side
    gallery: _Side

    def of(self, parts: slice) -> "_Tile":
        return _Tile(self.rows, self.columns, self.query.of(parts), self.gallery.of(parts))

    def description(self) -> tuple[PartSizes, PartSide, PartSide]:
        parts, rows, dim = self.query.features.shape
        columns = self.gallery.features.shape[1]
        sizes = PartSizes(DTYPE_CODES[self.query.weights.dtype], parts, rows, columns, dim)
        return sizes, self.query.description(), self.gallery.description()


def _tiles(q_features: Tensor, q_weights: Tensor, g_features: Tensor, g_weights: Tensor) -> Iterator[_Tile]:
    queries = [(rows, _side(q_features[rows], q_weights[rows])) for rows in _slices(len(q_features), _ROWS)]
    for columns in _slices(len(g_features), _COLUMNS):
        gallery = _side(g_features[columns], g_weights[columns])
        for rows, query in queries:
            yield _Tile(rows, columns, query, gallery)


def _side(features: Tensor, weights: Tensor) -> _Side:
    """A side in the dtype of the weights, with contiguous rows."""
    features = features.to(weights.dtype)
    if features.stride(2) != 1:
        features = features.contiguous()
    n, parts, dim = features.shape
    packed = memory.empty((parts, product.packed_size(n, dim, features.dtype)), features.dtype)
    squares = features.new_empty((parts, n))
    for part in range(parts):
        product.pack(features[:, part], out=packed[part], square=squares[part])
    return _Side(features.transpose(0, 1), squares, weights.T.contiguous(), packed)


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
