"""The part metric: torch's matrix products tile by tile, each handed to a kernel."""

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
            tile.description(), address(tile.product), address(target), target.stride(0),
            torch.get_num_threads(),
        )  # fmt: skip
    return distance


def part_distance_backward(
    grad: Tensor, q_features: Tensor, q_weights: Tensor, g_features: Tensor, g_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad = grad if grad.stride(1) == 1 else grad.contiguous()
    dq, dg = (q_weights.new_zeros(each.shape) for each in (q_features, g_features))
    dwq, dwg = (q_weights.new_zeros(each.shape) for each in (q_weights, g_weights))
    lengths = q_weights.new_empty(_ROWS * _COLUMNS)
    for tile in _tiles(q_features, q_weights, g_features, g_weights):
        upstream = grad[tile.rows, tile.columns]
        c = tile.product
        length = lengths[: c.numel()].view(c.shape)
        # c becomes grad w_q w_g / distance, length grad distance.
        _native.part_distance_backward(
            tile.description(), address(upstream), upstream.stride(0), address(c), address(length),
            torch.get_num_threads(),
        )  # fmt: skip
        # d psi / d f_i = sum_j c_ij (f_i - g_j), and the same the other way.
        query, gallery = tile.query, tile.gallery
        with torch.autocast("cpu", enabled=False):
            dq_tile, dg_tile = dq[tile.rows, tile.part], dg[tile.columns, tile.part]
            dq_tile.addcmul_(c.sum(1, keepdim=True), query.features).addmm_(c, gallery.features, alpha=-1)
            dg_tile.addcmul_(c.sum(0)[:, None], gallery.features).addmm_(c.T, query.features, alpha=-1)
            dwq[tile.rows, tile.part].addmv_(length, gallery.weights)
            dwg[tile.columns, tile.part].addmv_(length.T, query.weights)
    return dq.to(q_features.dtype), dwq, dg.to(g_features.dtype), dwg


class _Side(NamedTuple):
    """Queries or gallery items of a tile in one part: features (n,D), squared norms (n,), weights (n,)."""

    features: Tensor
    squares: Tensor
    weights: Tensor


class _Tile(NamedTuple):
    """The pairs `rows` x `columns` in one part, and their dot products (rows,columns)."""

    rows: slice
    columns: slice
    part: int
    query: _Side
    gallery: _Side
    product: Tensor

    def description(self) -> tuple[int, ...]:
        """PartTuple in csrc/bindings.cpp."""
        query, gallery = self.query, self.gallery
        return (
            DTYPE_CODES[self.product.dtype], *self.product.shape, query.features.shape[1],
            address(query.features), query.features.stride(0),
            address(gallery.features), gallery.features.stride(0),
            address(query.squares), address(gallery.squares),
            address(query.weights), address(gallery.weights),
        )  # fmt: skip


def _tiles(q_features: Tensor, q_weights: Tensor, g_features: Tensor, g_weights: Tensor) -> Iterator[_Tile]:
    """Every tile of every part; a tile's product lives until the next one is asked for."""
    buffer = q_weights.new_empty(_ROWS * _COLUMNS)
    queries = _sides(q_features, q_weights)
    for columns in _slices(len(g_features), _COLUMNS):
        galleries = _sides(g_features[columns], g_weights[columns])
        for rows in _slices(len(q_features), _ROWS):
            for part, (whole, gallery) in enumerate(zip(queries, galleries, strict=True)):
                query = _Side(*(each[rows] for each in whole))
                product = buffer[: len(query.features) * len(gallery.features)]
                product = product.view(len(query.features), len(gallery.features))
                with torch.autocast("cpu", enabled=False):
                    torch.mm(query.features, gallery.features.T, out=product)
                yield _Tile(rows, columns, part, query, gallery, product)


def _sides(features: Tensor, weights: Tensor) -> list[_Side]:
    """One for each part, in the weights' precision, with the numbers of a feature adjacent."""
    features = features.to(weights.dtype)
    if features.stride(2) != 1:
        features = features.contiguous()
    squares = torch.linalg.vector_norm(features, dim=2).square().T.contiguous()
    return list(map(_Side, features.unbind(1), squares, weights.T.contiguous()))


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
