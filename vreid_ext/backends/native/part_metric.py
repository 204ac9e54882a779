"""The part metric: torch's matrix products tile by tile, each handed to a kernel."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends.addresses import DTYPE_CODES, address

# Of one product: 8 MiB in float32. Smaller tiles run the kernel in a nearer cache, but the product slower: it
# packs its operands anew for every tile.
_ROWS, _COLUMNS = 1024, 2048


def part_distance(q_features: Tensor, q_weights: Tensor, g_features: Tensor, g_weights: Tensor) -> Tensor:
    distance = q_weights.new_zeros((len(q_features), len(g_features)))
    for tile in _tiles(q_features, q_weights, g_features, g_weights):
        target = distance[tile.rows, tile.columns]
        _native.part_distance(
            *tile.description(), address(tile.products), address(target), target.stride(0),
            torch.get_num_threads(),
        )  # fmt: skip
    return distance


def part_distance_backward(
    grad: Tensor, q_features: Tensor, q_weights: Tensor, g_features: Tensor, g_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad = grad if grad.stride(1) == 1 else grad.contiguous()
    dq, dg = (q_weights.new_zeros(each.shape) for each in (q_features, g_features))
    dwq, dwg = (q_weights.new_zeros(each.shape) for each in (q_weights, g_weights))
    for tile in _tiles(q_features, q_weights, g_features, g_weights):
        upstream = grad[tile.rows, tile.columns]
        c, length = tile.products, torch.empty_like(tile.products)
        targets = dq[tile.rows, tile.parts], dg[tile.columns, tile.parts]
        # c becomes grad w_q w_g / distance, length grad distance. Pairs that are close are added to the
        # targets, and their c is zero.
        _native.part_distance_backward(
            *tile.description(), address(upstream), upstream.stride(0), address(c), address(length),
            *map(address, targets), *dq.stride()[:2], torch.get_num_threads(),
        )  # fmt: skip
        # d psi / d f_i = sum_j c_ij (f_i - g_j), and the same the other way.
        query, gallery = tile.query, tile.gallery
        with torch.autocast("cpu", enabled=False):
            dq_tile, dg_tile = (each.transpose(0, 1) for each in targets)
            dq_tile.addcmul_(c.sum(2, keepdim=True), query.features).baddbmm_(c, gallery.features, alpha=-1)
            dg_tile.addcmul_(c.sum(1)[..., None], gallery.features).baddbmm_(c.mT, query.features, alpha=-1)
            dwq[tile.rows, tile.parts] += (length @ gallery.weights[..., None])[..., 0].T
            dwg[tile.columns, tile.parts] += (query.weights[:, None] @ length)[:, 0].T
    return dq.to(q_features.dtype), dwq, dg.to(g_features.dtype), dwg


class _Side(NamedTuple):
    """Queries or gallery items in some parts: features (P,n,D), squared norms (P,n), weights (P,n)."""

    features: Tensor
    squares: Tensor
    weights: Tensor

    def part(self, parts: slice, items: slice) -> "_Side":
        return _Side(*(each[parts, items] for each in self))

    def description(self) -> tuple[int, ...]:
        """PartSideTuple in csrc/bindings.cpp."""
        parts_stride, row_stride, _ = self.features.stride()
        addresses = map(address, self)
        return next(addresses), row_stride, parts_stride, *addresses, self.squares.stride(0)


class _Tile(NamedTuple):
    """The pairs `rows` x `columns` in some parts, and their dot products (P,rows,columns)."""

    rows: slice
    columns: slice
    parts: slice
    query: _Side
    gallery: _Side
    products: Tensor

    def description(self) -> tuple[tuple[int, ...], ...]:
        """PartTuple and both PartSideTuple in csrc/bindings.cpp."""
        sizes = *self.products.shape, self.query.features.shape[2]
        code = DTYPE_CODES[self.products.dtype]
        return (code, *sizes), self.query.description(), self.gallery.description()


def _tiles(q_features: Tensor, q_weights: Tensor, g_features: Tensor, g_weights: Tensor) -> Iterator[_Tile]:
    """Every tile of every part, of as many parts at once as fit in its memory; a tile's products live until
    the next one is asked for.
    """
    queries = _side(q_features, q_weights)
    parts, pairs = len(queries.features), min(len(q_features), _ROWS) * min(len(g_features), _COLUMNS)
    together = min(parts, max(1, _ROWS * _COLUMNS // pairs))
    buffer = q_weights.new_empty(together * pairs)
    for columns in _slices(len(g_features), _COLUMNS):
        galleries = _side(g_features[columns], g_weights[columns])
        for rows in _slices(len(q_features), _ROWS):
            for some in _slices(parts, together):
                query, gallery = queries.part(some, rows), galleries.part(some, slice(None))
                shape = *query.squares.shape, gallery.squares.shape[1]
                products = buffer[: math.prod(shape)].view(shape)
                with torch.autocast("cpu", enabled=False):
                    torch.bmm(query.features, gallery.features.mT, out=products)
                yield _Tile(rows, columns, some, query, gallery, products)


def _side(features: Tensor, weights: Tensor) -> _Side:
    """In the weights' precision, with the numbers of a feature adjacent."""
    features = features.to(weights.dtype)
    if features.stride(2) != 1:
        features = features.contiguous()
    squares = torch.linalg.vector_norm(features, dim=2).square().T.contiguous()
    return _Side(features.transpose(0, 1), squares, weights.T.contiguous())


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
