"""Ranking kernels: float32 products of packed features, and float64 distances where those do not decide."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends.addresses import DTYPE_CODES, Rows, address, dense, rows
from vreid_ext.backends.errors import finite_rows
from vreid_ext.backends.native import product

_METRICS = {"cosine": 0, "euclidean": 1}  # Metric in csrc/common/types.h
_UNIT = 2.0**-24  # of rounding in float32
_ROWS = 4096  # at a time, of queries, which are packed, and of the gallery, which becomes float32

_NO_FEATURES = (DTYPE_CODES[torch.float32], 0, 0, 0, 0)
_NO_SIDES = (product.NO_PANELS, rows(None))


def pair_distances(query: Tensor, gallery: Tensor, row: Tensor, index: Tensor, metric: str) -> Tensor:
    query, gallery, row, index = number(query), number(gallery), row.contiguous(), index.contiguous()
    distance = torch.empty(row.shape, dtype=torch.float64, device="cpu")
    _native.pair_distances(
        _view(query, gallery, metric),
        *(len(query), len(gallery), len(row)),
        *map(address, (row, index, distance)),
        torch.get_num_threads(),
    )
    if not distance.isfinite().all():
        finite_rows("query", squared_norms(query), metric)
        finite_rows("gallery", squared_norms(gallery), metric)
    return distance


def rank_counts(
    distances: Tensor,
    start: Tensor,
    index: Tensor,
    distance: Tensor,
    left_start: Tensor | None,
    left: Tensor | None,
    kept: Tensor | None,
    offset: int,
) -> Tensor:
    distances = distances.contiguous()
    start, index, distance = start.contiguous(), index.contiguous(), distance.contiguous()
    kept, left_start, left = dense(kept), dense(left_start), dense(left)
    counts = torch.zeros_like(index)
    bound = distance.to(distances.dtype)  # exact for distances of this dtype
    _native.rank_counts(
        (
            *(DTYPE_CODES[distances.dtype], *distances.shape, offset, address(distances), 0, 0),
            *(address(kept), address(left_start), address(left)),
        ),
        _NO_SIDES,
        _NO_FEATURES,
        *(len(index), 0 if left is None else len(left)),
        *map(address, (start, bound, bound, distance, index, counts)),
        torch.get_num_threads(),
    )
    return counts


def feature_rank_counts(
    query: Tensor,
    gallery: Tensor,
    start: Tensor,
    index: Tensor,
    distance: Tensor,
    left_start: Tensor | None,
    left: Tensor | None,
    kept: Tensor | None,
    metric: str,
    offset: int,
) -> Tensor:
    products = _Products(query, gallery, metric)
    start, index, distance = start.contiguous(), index.contiguous(), distance.contiguous()
    kept, left_start, left = dense(kept), dense(left_start), dense(left)
    counts = torch.zeros_like(index)
    row = torch.repeat_interleave(start.diff(), output_size=len(index))
    key, error = products.key(distance, row), products.error[row]
    low, high = (key - error).float(), (key + error).float()
    for tile in products.tiles():
        _native.rank_counts(
            products.tile(tile, offset, kept, left_start, left),
            tile.sides(),
            products.view(tile),
            *(len(index), 0 if left is None else len(left)),
            start.data_ptr() + tile.rows.start * start.itemsize,
            *map(address, (low, high, distance, index, counts)),
            torch.get_num_threads(),
        )
    return counts


def top_k(
    query: Tensor,
    gallery: Tensor,
    k: int,
    metric: str,
    left_start: Tensor | None,
    left: Tensor | None,
    kept: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    products = _Products(query, gallery, metric)
    kept, left_start, left = dense(kept), dense(left_start), dense(left)
    wanted = min(k, len(gallery))
    capacity = 2 * wanted + 64
    keys = torch.empty(len(query), capacity, dtype=torch.float32, device="cpu")
    candidates = torch.empty(len(query), capacity, dtype=torch.int64, device="cpu")
    size = torch.zeros(len(query), dtype=torch.int64, device="cpu")
    limit = torch.full((len(query),), torch.finfo(torch.float32).max, dtype=torch.float32, device="cpu")
    largest = torch.full((len(query),), -torch.inf, dtype=torch.float32, device="cpu")
    lists = (products.error.float(), keys, candidates, size, limit, largest)
    for tile in products.tiles():
        _native.top_k(
            products.tile(tile, 0, kept, left_start, left),
            tile.sides(),
            products.view(tile, whole_gallery=True),
            *(0 if left is None else len(left), wanted, capacity),
            *(address(each[tile.rows]) for each in lists),
            torch.get_num_threads(),
        )
    nearest = torch.full((len(query), k), torch.inf, dtype=torch.float64, device="cpu")
    indices = torch.full((len(query), k), -1, dtype=torch.int64, device="cpu")
    _native.top_k_result(
        (DTYPE_CODES[torch.float32], len(query), 0, *(0,) * 7),
        _view(products.query, products.gallery, metric),
        *(0, wanted, capacity),
        *map(address, lists),
        *(k, address(nearest), address(indices)),
        torch.get_num_threads(),
    )
    return nearest, indices, products.distance(largest)


class _Tile(NamedTuple):
    """Some queries, packed for products, and some gallery items in float32."""

    rows: slice
    columns: slice
    queries: product.Panels
    items: Tensor

    def sides(self) -> tuple[tuple[int, int, int], Rows]:
        """SidesTuple in csrc/bindings_ranking.cpp."""
        return self.queries.description(), rows(self.items)


class _Products:
    """Keys in float32 that order the gallery as distances do, within `error`: the distance itself for
    "cosine", and for "euclidean" its square less the query's squared norm.

    A key is shift + scale * product, with shift and scale of the gallery item.
    """

    def __init__(self, query: Tensor, gallery: Tensor, metric: str) -> None:
        self.query, self.gallery, self.metric = number(query), number(gallery), metric
        self.query_squares, squares = squared_norms(self.query), squared_norms(self.gallery)
        finite_rows("query", self.query_squares, metric)
        finite_rows("gallery", squares, metric)
        rounding = _UNIT * (4 * query.shape[1] ** 0.5 + 8)  # of a product of unit vectors
        lengths, norms = self.query_squares.sqrt(), squares.sqrt()
        self.lengths = self.divisor = None
        if metric == "cosine":
            self.lengths = _divisor(lengths)
            shortest, longest = _divisor(norms).aminmax()
            if shortest < 1e-10 or longest > 1e10:  # a product in float32 could under- or overflow
                self.divisor, norms = _divisor(norms), norms.sign()
            self.scale, self.shift = -norms.sign() / _divisor(norms), torch.ones_like(norms)
            self.error = torch.full_like(lengths, rounding)
        else:
            self.scale, self.shift = torch.full_like(norms, -2), squares
            longest = norms.max()
            self.error = 2 * rounding * lengths * longest + 4 * _UNIT * (lengths + longest).square() + 1e-35
        self.scale, self.shift = self.scale.float(), self.shift.float()

    def key(self, distance: Tensor, row: Tensor) -> Tensor:
        """(P,) float64: the exact keys that belong to distances of the given rows."""
        return distance if self.metric == "cosine" else distance.square() - self.query_squares[row]

    def distance(self, key: Tensor) -> Tensor:
        """(Q,) float64: the distances that belong to one key of each row."""
        return key.double() if self.metric == "cosine" else (key + self.query_squares).clamp(min=0).sqrt()

    def tiles(self) -> Iterator[_Tile]:
        several = len(self.query) > _ROWS
        for columns in _slices(len(self.gallery)):
            items = self.gallery[columns]
            items = items.float() if self.divisor is None else (items / self.divisor[columns, None]).float()
            for some in _slices(len(self.query)):
                if several or columns.start == 0:
                    queries = _pack(self.query[some], None if self.lengths is None else self.lengths[some])
                yield _Tile(some, columns, queries, items)

    def tile(
        self, tile: _Tile, offset: int, kept: Tensor | None, left_start: Tensor | None, left: Tensor | None
    ) -> tuple[int, ...]:
        """Tile in csrc/common/types.h; `offset` is the gallery index of the first row."""
        first = tile.columns.start
        part = (self.scale[tile.columns], self.shift[tile.columns], None if kept is None else kept[first:])
        return (
            *(DTYPE_CODES[torch.float32], tile.queries.n, len(tile.items), offset + first, 0),
            *map(address, part),
            *(address(None if left_start is None else left_start[tile.rows.start :]), address(left)),
        )

    def view(self, tile: _Tile, *, whole_gallery: bool = False) -> tuple[int, ...]:
        """Features in csrc/common/types.h, from the rows of a tile on."""
        gallery = self.gallery if whole_gallery else self.gallery[tile.columns]
        return _view(self.query[tile.rows], gallery, self.metric)


def _view(query: Tensor, gallery: Tensor, metric: str) -> tuple[int, ...]:
    """Features in csrc/common/types.h."""
    code = DTYPE_CODES[query.dtype]
    return code, _METRICS[metric], query.shape[1], query.data_ptr(), gallery.data_ptr()


def number(x: Tensor) -> Tensor:
    """Rows as the kernels read them: float32 or float64, contiguous."""
    return (x if x.dtype == torch.float64 else x.float()).contiguous()


def squared_norms(x: Tensor) -> Tensor:
    squares = torch.empty(len(x), dtype=torch.float64, device="cpu")
    _native.squared_norms(
        DTYPE_CODES[x.dtype], *x.shape, address(x), address(squares), torch.get_num_threads()
    )
    return squares


def _divisor(norms: Tensor) -> Tensor:
    return norms.where(norms > 0, 1)


def _pack(x: Tensor, norms: Tensor | None) -> product.Panels:
    """Rows packed in float32, divided by their norms if there are any."""
    if norms is None:
        return product.pack(x.float())
    if norms.min() < 1e-30 or norms.max() > 1e30:  # which float32 does not have, or not their reciprocals
        return product.pack((x / norms[:, None]).float())
    return product.pack(x.float(), norms.reciprocal().float())


def _slices(length: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, length)) for start in range(0, length, _ROWS)]
