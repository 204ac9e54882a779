"""k-reciprocal re-ranking with sparse rows. The result is computed in blocks of dense rows, or is sparse."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import addresses, signatures
from vreid_ext.backends.addresses import DTYPE_CODES, address
from vreid_ext.backends.errors import finite_rows
from vreid_ext.backends.native import product, ranking
from vreid_ext.precision import accumulator

# Features are centered if the squared norm of their mean exceeds their variance by this factor.
_OFF_CENTRE = 64
_BLOCK_ELEMENTS = 1 << 22  # products in a block: 32 MiB in float64


@dataclass(frozen=True)
class SparseRows:
    """CSR matrix: row i has value[n] in column index[n] for start[i] <= n < start[i+1]."""

    start: Tensor
    index: Tensor
    value: Tensor

    def view(self, first: int = 0) -> addresses.SparseRows:
        """Describe the rows for the kernels, starting at row `first`."""
        start = address(self.start[first:])
        dtype = DTYPE_CODES[self.value.dtype]
        return addresses.SparseRows(start, address(self.index), address(self.value), len(self.index), dtype)


def encode(
    rank: Tensor,
    distances: Tensor,
    farthest: Tensor,
    between: Callable[[Tensor, Tensor], Tensor],
    k1: int,
    k2: int,
    dtype: torch.dtype,
) -> SparseRows:
    """The rows V of `ops.k_reciprocal`; the arguments are those of `KReciprocal`."""
    n, k = len(rank), min(k1 + 1, rank.shape[1])
    threads = torch.get_num_threads()
    farthest = _positive(farthest)
    start = torch.zeros(n + 1, dtype=torch.int64, device="cpu")
    nearest, nearest_distances = rank[:, :k].contiguous(), distances[:, :k].contiguous()
    sizes = (n, k, min(k, round(k1 / 2) + 1), address(nearest), address(nearest_distances))
    _native.reciprocal(*sizes, address(start), 0, 0, threads)
    start = start.cumsum(0)
    index = torch.empty(int(start[-1]), dtype=torch.int64, device="cpu")
    distance = torch.empty(len(index), dtype=torch.float64, device="cpu")
    _native.reciprocal(*sizes, *map(address, (start, index, distance)), threads)
    row = torch.repeat_interleave(start.diff(), output_size=len(index))
    # For neighbors of neighbors, the distance may be missing in `distances`.
    unknown = (distance < 0).nonzero()[:, 0]
    distance[unknown] = between(row[unknown], index[unknown])
    weight = torch.exp(-distance.square() / farthest.square()[row])
    weight /= torch.zeros(n, dtype=torch.float64, device="cpu").index_add_(0, row, weight)[row]
    rows = SparseRows(start, index, weight.to(dtype))
    return _mean_rows(rows, rank, min(k2, rank.shape[1])) if k2 > 1 else rows


class KReciprocal:
    """Sparse state from which re-ranked distances are computed, one block of queries at a time.

    Args:
        rank, distances: (N, min(N, max(k1+1, k2))), the nearest items of every item and their distances.
            Queries come before gallery items.
        farthest: (N,), distance from each item to its farthest item.
        between: function that computes the distances of pairs (row, index) of items.
        dtype: dtype of the re-ranked distances, float32 or float64.
    """

    def __init__(
        self,
        rank: Tensor,
        distances: Tensor,
        farthest: Tensor,
        between: Callable[[Tensor, Tensor], Tensor],
        queries: int,
        k1: int,
        k2: int,
        lambda_value: float,
        dtype: torch.dtype,
    ) -> None:
        rows = encode(rank, distances, farthest, between, k1, k2, dtype)
        n = len(rank)
        farthest = _positive(farthest)
        self.query = SparseRows(rows.start[: queries + 1], rows.index, rows.value)
        self.columns = _transpose(rows, queries)
        self.farthest = farthest[:queries].square().to(dtype)
        self.lambda_value = lambda_value
        self.shape = queries, n - queries

    def rerank(
        self, first: int, block: Tensor, query_squares: Tensor | None, gallery_squares: Tensor | None
    ) -> Tensor:
        """Replace a block of rows, starting at query `first`, by re-ranked distances, in place.

        Args:
            block: (q,G), dot products of features if squared norms are given, otherwise distances. `block`
                and the norms have the dtype of the result.
        """
        _native.overlap(
            *(*block.shape, sum(self.shape), self.lambda_value, self.query.view(first), self.columns.view()),
            *map(address, (query_squares, gallery_squares, self.farthest[first:], block)),
            torch.get_num_threads(),
        )
        return block


class FeatureKReciprocal:
    """Re-ranked distances of features, see `vreid_ext.ops.rerank.ReRanked`."""

    def __init__(self, query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> None:
        for name, part in (("query", query), ("gallery", gallery)):
            finite_rows(name, ranking.squared_norms(ranking.in_kernel_dtype(part)), "euclidean")
        dtype = accumulator(query.dtype)
        items = _comparable(ranking.in_kernel_dtype(torch.cat([query, gallery])))
        neighbors = _neighbors(items, k1, k2, dtype)
        self._sparse = KReciprocal(*neighbors, len(query), k1, k2, lambda_value, dtype)
        self._query, items = items[: len(query)].to(dtype), items[len(query) :].to(dtype)
        self._squares = [ranking.squared_norms(part).to(dtype) for part in (self._query, items)]
        self._gallery = product.pack(items)
        self.shape = self._sparse.shape

    def rows(self, start: int, stop: int) -> Tensor:
        block = product.products(product.pack(self._query[start:stop]), self._gallery)
        query_squares, gallery_squares = self._squares
        return self._sparse.rerank(start, block, query_squares[start:stop], gallery_squares)


def k_reciprocal(args: signatures.KReciprocal) -> FeatureKReciprocal:
    return FeatureKReciprocal(args.query, args.gallery, args.k1, args.k2, args.lambda_value)


def jaccard_graph(args: signatures.JaccardGraph) -> tuple[Tensor, Tensor, Tensor]:
    features = ranking.in_kernel_dtype(args.features)
    finite_rows("features", ranking.squared_norms(features), "euclidean")
    dtype, n = accumulator(args.features.dtype), len(features)
    rows = encode(*_neighbors(_comparable(features), args.k1, args.k2, dtype), args.k1, args.k2, dtype)
    columns = _transpose(rows, 0)
    # Transposed twice, rows are in ascending order of column. The sums of (i,j) and (j,i) are then equal.
    rows = _transpose(columns, 0)
    sizes = (n, args.limit, rows.view(), columns.view())
    start = torch.zeros(n + 1, dtype=torch.int64, device="cpu")
    _native.jaccard(*sizes, address(start), 0, 0, torch.get_num_threads())
    start = start.cumsum(0)
    index = torch.empty(int(start[-1]), dtype=torch.int64, device="cpu")
    distance = torch.empty(len(index), dtype=dtype, device="cpu")
    _native.jaccard(*sizes, *map(address, (start, index, distance)), torch.get_num_threads())
    return start, index, distance


def _neighbors(
    items: Tensor, k1: int, k2: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """The arguments rank, distances, farthest and between of `KReciprocal`."""
    k = min(max(k1 + 1, k2), len(items))
    nearest = signatures.TopK(items, items, k, "euclidean", None, None, None)
    distances, rank, farthest = ranking.top_k(nearest)
    if dtype == torch.float64:  # `farthest` of top_k comes from float32 keys
        farthest = _farthest(items)

    def between(row: Tensor, index: Tensor) -> Tensor:
        return ranking.pair_distances(signatures.PairDistances(items, items, row, index, "euclidean"))

    return rank, distances, farthest, between


def _positive(farthest: Tensor) -> Tensor:
    return torch.where(farthest == 0, 1, farthest)  # zero if all items are equal


def _comparable(items: Tensor) -> Tensor:
    """Translate and scale features to keep precision in their dtype; ratios of distances do not change."""
    squares = ranking.squared_norms(items)
    mean = items.mean(0, dtype=torch.float64)
    if mean.square().sum() > _OFF_CENTRE * (squares.mean() - mean.square().sum()):
        items = items - mean
        squares = ranking.squared_norms(items)
    norm = float(squares.max().sqrt())
    if norm > 0 and not 1e-9 < norm < 1e9:
        items = items.double() * 2.0 ** -math.frexp(norm)[1]
    return items


def _farthest(items: Tensor) -> Tensor:
    """(N,) distance from each item to its farthest item, from products in float64."""
    squares, packed = ranking.squared_norms(items), product.pack(items)
    size = max(1, _BLOCK_ELEMENTS // len(items))
    largest = [
        (squares - 2 * product.products(product.pack(rows), packed)).amax(1) for rows in items.split(size)
    ]
    return (torch.cat(largest) + squares).clamp(min=0).sqrt()


def _mean_rows(rows: SparseRows, rank: Tensor, k: int) -> SparseRows:
    n = len(rank)
    sizes = (*rank.shape, k, address(rank), rows.view())
    start = torch.zeros(n + 1, dtype=torch.int64, device="cpu")
    _native.mean_rows(*sizes, address(start), 0, 0, torch.get_num_threads())
    start = start.cumsum(0)
    index = torch.empty(int(start[-1]), dtype=torch.int64, device="cpu")
    value = torch.empty(len(index), dtype=rows.value.dtype, device="cpu")
    _native.mean_rows(*sizes, *map(address, (start, index, value)), torch.get_num_threads())
    return SparseRows(start, index, value)


def _transpose(rows: SparseRows, first: int) -> SparseRows:
    n = len(rows.start) - 1
    entries = int(rows.start[-1] - rows.start[first])
    columns = SparseRows(
        torch.zeros(n + 1, dtype=torch.int64, device="cpu"),
        torch.empty(entries, dtype=torch.int64, device="cpu"),
        torch.empty(entries, dtype=rows.value.dtype, device="cpu"),
    )
    _native.transpose(n, first, rows.view(), *map(address, (columns.start, columns.index, columns.value)))
    return columns
