"""Ranking kernels: float32 products of packed features, float64 distances for ambiguous comparisons."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import (
    DTYPE_CODES,
    METRIC_CODES,
    Features,
    Panels,
    Rows,
    Tile,
    address,
    dense,
    rows,
)
from vreid_ext.backends.errors import all_finite, finite_rows
from vreid_ext.backends.native import product

_UNIT = 2.0**-24  # unit roundoff of float32
_ROWS = 4096  # queries that are packed, and gallery items that are converted to float32, at a time

_ALL = slice(None)
_NO_FEATURES = Features(DTYPE_CODES[torch.float32], METRIC_CODES["euclidean"], 0, 0, 0, 0, 0)
_NO_SIDES = (product.NO_PANELS, rows(None))


def pair_distances(args: signatures.PairDistances) -> Tensor:
    query, gallery, row, index = (
        in_kernel_dtype(args.query),
        in_kernel_dtype(args.gallery),
        args.row.contiguous(),
        args.index.contiguous(),
    )
    distance = torch.empty(row.shape, dtype=torch.float64, device="cpu")
    _native.pair_distances(
        _view(query, gallery, args.metric),
        *(len(query), len(gallery), len(row)),
        *map(address, (row, index, distance)),
        torch.get_num_threads(),
    )
    if not distance.isfinite().all():
        finite_rows("query", squared_norms(query), args.metric)
        finite_rows("gallery", squared_norms(gallery), args.metric)
    return distance


def rank_counts(args: signatures.RankCounts) -> Tensor:
    distances = args.distances.contiguous()
    start, index, distance = args.start.contiguous(), args.index.contiguous(), dense(args.distance)
    kept, left_start, left = dense(args.kept), dense(args.left_start), dense(args.left)
    counts = torch.zeros_like(index)
    finite = torch.empty(len(distances), dtype=torch.bool, device="cpu") if args.check else None
    rows, columns = distances.shape
    tile = Tile(
        DTYPE_CODES[distances.dtype], rows, columns, args.offset, address(distances), 0, 0, address(kept),
        address(left_start), address(left),
    )  # fmt: skip
    _native.rank_counts(
        tile,
        *_NO_SIDES,
        _NO_FEATURES,
        *(len(index), 0 if left is None else len(left)),
        *map(address, (start, None, None, distance, index, counts, finite)),
        torch.get_num_threads(),
    )
    if finite is not None:
        all_finite("distances", finite)
    return counts


def feature_rank_counts(args: signatures.FeatureRankCounts) -> Tensor:
    products = _Products(args.query, args.gallery, args.metric)
    start, index, distance = args.start.contiguous(), args.index.contiguous(), args.distance.contiguous()
    kept, left_start, left = dense(args.kept), dense(args.left_start), dense(args.left)
    counts = torch.zeros_like(index)
    row = torch.repeat_interleave(start.diff(), output_size=len(index))
    key, error = products.key(distance, row), products.error[row]
    low, high = (key - error).float(), (key + error).float()
    for tile in products.tiles():
        _native.rank_counts(
            products.tile(tile, args.offset, kept, left_start, left),
            *tile.sides(),
            products.view(tile.rows, tile.columns),
            *(len(index), 0 if left is None else len(left)),
            start.data_ptr() + tile.rows.start * start.itemsize,
            *map(address, (low, high, distance, index, counts, None)),
            torch.get_num_threads(),
        )
    return counts


def top_k(args: signatures.TopK) -> tuple[Tensor, Tensor, Tensor]:
    products = _Products(args.query, args.gallery, args.metric)
    kept, left_start, left = dense(args.kept), dense(args.left_start), dense(args.left)
    nearest_count = min(args.k, len(args.gallery))
    capacity = 2 * nearest_count + 64
    keys = torch.empty(len(args.query), capacity, dtype=torch.float32, device="cpu")
    candidates = torch.empty(len(args.query), capacity, dtype=torch.int64, device="cpu")
    size = torch.zeros(len(args.query), dtype=torch.int64, device="cpu")
    limit = torch.full((len(args.query),), torch.finfo(torch.float32).max, dtype=torch.float32, device="cpu")
    largest = torch.full((len(args.query),), -torch.inf, dtype=torch.float32, device="cpu")
    lists = (products.error.float(), keys, candidates, size, limit, largest)
    for tile in products.tiles():
        _native.top_k(
            products.tile(tile, 0, kept, left_start, left),
            *tile.sides(),
            products.view(tile.rows),
            *(0 if left is None else len(left), nearest_count, capacity),
            *(address(each[tile.rows]) for each in lists),
            torch.get_num_threads(),
        )
    nearest = torch.full((len(args.query), args.k), torch.inf, dtype=torch.float64, device="cpu")
    indices = torch.full((len(args.query), args.k), -1, dtype=torch.int64, device="cpu")
    _native.top_k_result(
        Tile(DTYPE_CODES[torch.float32], len(args.query), 0, 0, 0, 0, 0, 0, 0, 0),
        products.view(),
        *(0, nearest_count, capacity),
        *map(address, lists),
        *(args.k, address(nearest), address(indices)),
        torch.get_num_threads(),
    )
    return nearest, indices, products.distance(largest)


class _Tile(NamedTuple):
    """A block of packed queries and a block of gallery items in float32, and their products if computed."""

    rows: slice
    columns: slice
    queries: product.Panels
    items: Tensor
    values: Tensor | None = None

    def sides(self) -> tuple[Panels, Rows]:
        """What the kernel computes the products from."""
        return (self.queries.description(), rows(self.items)) if self.values is None else _NO_SIDES


class _Products:
    """float32 keys that order the gallery items like their distances, up to `error`.

    The key is the distance for "cosine", and the squared distance minus the query's squared norm for
    "euclidean". It is computed as shift + scale * product, with shift and scale of the gallery item.
    """

    def __init__(self, query: Tensor, gallery: Tensor, metric: str) -> None:
        self.query, self.gallery, self.metric = in_kernel_dtype(query), in_kernel_dtype(gallery), metric
        self.query_squares = squared_norms(self.query)
        finite_rows("query", self.query_squares, metric)
        lengths = self.query_squares.sqrt()
        self.lengths = _divisor(lengths) if metric == "cosine" else None
        self.computed = None
        if len(query) <= product.PANEL_ROWS[torch.float32] and self.gallery.dtype == torch.float32:
            # Few queries take less time than a read of the gallery: it is read once for norms and products.
            values = torch.empty(len(query), len(gallery), dtype=torch.float32, device="cpu")
            block = slice(0, len(query)), slice(0, len(gallery))
            self.computed = _Tile(*block, _pack(self.query, self.lengths), self.gallery, values)
        self.gallery_squares = squares = squared_norms(self.gallery, self.computed)
        finite_rows("gallery", squares, metric)
        rounding = _rounding(query.shape[1])
        norms = squares.sqrt()
        self.divisor = None
        if metric == "cosine":
            shortest, longest = _divisor(norms).aminmax()
            if shortest < 1e-10 or longest > 1e10:  # a product in float32 could under- or overflow
                self.divisor, norms, self.computed = _divisor(norms), norms.sign(), None
            self.scale, self.shift = -norms.sign() / _divisor(norms), torch.ones_like(norms)
            self.error = torch.full_like(lengths, rounding)
        else:
            self.scale, self.shift = torch.full_like(norms, -2), squares
            longest = norms.max()
            self.error = 2 * rounding * lengths * longest + 4 * _UNIT * (lengths + longest).square() + 1e-35
        self.scale, self.shift = self.scale.float(), self.shift.float()

    def key(self, distance: Tensor, row: Tensor) -> Tensor:
        """Exact keys (P,) float64 of the given distances; entry p belongs to query row[p]."""
        return distance if self.metric == "cosine" else distance.square() - self.query_squares[row]

    def distance(self, key: Tensor) -> Tensor:
        """Distances (Q,) float64 of the given keys, one for each query."""
        return key.double() if self.metric == "cosine" else (key + self.query_squares).clamp(min=0).sqrt()

    def tiles(self) -> Iterator[_Tile]:
        if self.computed is not None:
            yield self.computed
            return
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
    ) -> Tile:
        """The products of a tile; `offset` is the gallery index of the first row."""
        first = tile.columns.start
        scale, shift = self.scale[tile.columns], self.shift[tile.columns]
        kept = None if kept is None else kept[first:]
        left_start = None if left_start is None else left_start[tile.rows.start :]
        return Tile(
            DTYPE_CODES[torch.float32], tile.queries.n, len(tile.items), offset + first, address(tile.values),
            address(scale), address(shift), address(kept), address(left_start), address(left),
        )  # fmt: skip

    def view(self, rows: slice = _ALL, columns: slice = _ALL) -> Features:
        """Describe the features of some queries and items."""
        return _view(
            *(self.query[rows], self.gallery[columns], self.metric),
            *(self.query_squares[rows], self.gallery_squares[columns]),
        )


def _rounding(d: int) -> float:
    """Upper bound for the rounding error of a key "cosine" of rows of length d.

    The product of unit rows x and y is a sum of blocks (csrc/cpu/product.h). With k terms in a block and b
    blocks, its error is at most (k + b + 1) u sum_i |x_i y_i|, and the sum is at most 1 (Higham, Accuracy and
    Stability of Numerical Algorithms, section 4.2). The conversion and division of the rows to unit rows, the
    scale of the key, its shift and the conversion of the interval's bounds add at most 14 u, which includes
    terms in u^2.
    """
    block = min(d, product.BLOCK)
    return _UNIT * (block + -(-d // product.BLOCK) + 15)


def _view(
    query: Tensor,
    gallery: Tensor,
    metric: str,
    query_squares: Tensor | None = None,
    gallery_squares: Tensor | None = None,
) -> Features:
    return Features(
        *(DTYPE_CODES[query.dtype], METRIC_CODES[metric], query.shape[1]),
        *map(address, (query, gallery, query_squares, gallery_squares)),
    )


def in_kernel_dtype(x: Tensor) -> Tensor:
    """Rows in a dtype that the kernels support (float32 or float64), contiguous."""
    return (x if x.dtype == torch.float64 else x.float()).contiguous()


def squared_norms(x: Tensor, tile: _Tile | None = None) -> Tensor:
    """Squared norms of the rows x. `tile` has x as items; its products are computed in the same pass."""
    squares = torch.empty(len(x), dtype=torch.float64, device="cpu")
    queries, values = (product.NO_PANELS, None) if tile is None else (tile.queries.description(), tile.values)
    _native.squared_norms(
        DTYPE_CODES[x.dtype], *x.shape, address(x), address(squares), queries, address(values),
        torch.get_num_threads(),
    )  # fmt: skip
    return squares


def _divisor(norms: Tensor) -> Tensor:
    return norms.where(norms > 0, 1)


def _pack(x: Tensor, norms: Tensor | None) -> product.Panels:
    """Pack the rows of x in float32, divided by their norms if given."""
    if norms is None:
        return product.pack(x.float())
    if norms.min() < 1e-30 or norms.max() > 1e30:  # the norms or their reciprocals do not fit into float32
        return product.pack((x / norms[:, None]).float())
    return product.pack(x.float(), norms.reciprocal().float())


def _slices(length: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, length)) for start in range(0, length, _ROWS)]
