# mypy: disable-error-code="no-untyped-def"
# Kernel arguments are pointers and integers of the device program; only compile-time constants have a type.
"""The kernels of the part metric. Docstrings describe one program of the grid.

Names: a *pair* is a query and a gallery item; queries are the rows of a tile of pairs, items its columns.

All sums have a fixed order and there are no atomics, so the same inputs give the same bits.
"""

import triton
import triton.language as tl

from vreid_ext.backends.triton.products import grouped_tile, row_products

# kClosePair in csrc/common/part_metric.h; see there for the reason.
_CLOSE = tl.constexpr(1e-2)


@triton.jit
def _distances(
    q_features,
    q_square,
    g_features,
    g_square,
    query,
    item,
    has_query,
    has_item,
    part,
    parts,
    size,
    q_stride,
    g_stride,
    BLOCK_K: tl.constexpr,
):
    """||f - g|| of a tile of pairs in one part; `q_features` and `g_features` point to this part."""
    product = row_products(
        q_features, g_features, query, item, has_query, has_item, size, q_stride, g_stride, BLOCK_K
    )
    total = (
        tl.load(q_square + query * parts + part, mask=has_query, other=0.0)[:, None]
        + tl.load(g_square + item * parts + part, mask=has_item, other=0.0)[None, :]
    )
    squared = total - 2.0 * product
    # The negated comparison also selects NaN. `_CLOSE` is the right operand because Triton 3.8's interpreter
    # evaluates `constexpr * tensor` to a constant instead of a tensor.
    close = (squared >= total * _CLOSE) == 0
    if tl.max(tl.max(close.to(tl.int32), 1), 0) > 0:
        exact = tl.zeros(squared.shape, tl.float32)
        for place in tl.range(0, size, num_stages=1, loop_unroll_factor=1):
            f = tl.load(q_features + query * q_stride + place, mask=has_query, other=0.0).to(tl.float32)
            g = tl.load(g_features + item * g_stride + place, mask=has_item, other=0.0).to(tl.float32)
            gap = f[:, None] - g[None, :]
            exact += gap * gap
        squared = tl.where(close, exact, squared)
    return tl.sqrt_rn(squared)


@triton.jit
def part_distance(
    q_features,
    q_square,
    q_weights,
    g_features,
    g_square,
    g_weights,
    distance,
    queries,
    items,
    parts,
    size,
    q_stride,
    q_part,
    g_stride,
    g_part,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Program (tile of pairs): psi of Eq. 8, one part after another."""
    row, column = grouped_tile(tl.cdiv(queries, BLOCK_N), tl.cdiv(items, BLOCK_M), GROUP)
    query = row.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    item = column.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    has_query = query < queries
    has_item = item < items
    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    # LICM off: hoisting loop-invariant loads costs more occupancy (registers) than it saves time.
    for part in tl.range(0, parts, num_stages=1, disable_licm=True):
        length = _distances(
            q_features, q_square, g_features, g_square, query, item, has_query, has_item, part, parts, size,
            q_stride, g_stride, BLOCK_K,
        )  # fmt: skip
        q_weight = tl.load(q_weights + query * parts + part, mask=has_query, other=0.0)
        g_weight = tl.load(g_weights + item * parts + part, mask=has_item, other=0.0)
        total += q_weight[:, None] * g_weight[None, :] * length
        q_features += q_part
        g_features += g_part
    place = query[:, None] * items + item[None, :]
    tl.store(distance + place, total, mask=has_query[:, None] & has_item[None, :])


@triton.jit
def part_slopes(
    grad,
    q_features,
    q_square,
    q_weights,
    g_features,
    g_square,
    g_weights,
    slope,
    q_shares,
    g_shares,
    first,
    queries,
    items,
    parts,
    size,
    q_stride,
    q_part,
    g_stride,
    g_part,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Program (tile of pairs, index of the part relative to `first`): slope = grad w_q w_g / distance, zero
    at distance zero, and the tile's contributions to the gradients of the weights: sums of grad times
    distance times the weight of the other side.
    """
    row_tiles = tl.cdiv(queries, BLOCK_N)
    column_tiles = tl.cdiv(items, BLOCK_M)
    row, column = grouped_tile(row_tiles, column_tiles, GROUP)
    slot = tl.program_id(1).to(tl.int64)
    part = first + tl.program_id(1)
    query = row.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    item = column.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    has_query = query < queries
    has_item = item < items
    length = _distances(
        q_features + part.to(tl.int64) * q_part, q_square, g_features + part.to(tl.int64) * g_part, g_square,
        query, item, has_query, has_item, part, parts, size, q_stride, g_stride, BLOCK_K,
    )  # fmt: skip
    q_weight = tl.load(q_weights + query * parts + part, mask=has_query, other=0.0)[:, None]
    g_weight = tl.load(g_weights + item * parts + part, mask=has_item, other=0.0)[None, :]
    mask = has_query[:, None] & has_item[None, :]
    place = query[:, None] * items + item[None, :]
    upstream = tl.load(grad + place, mask=mask, other=0.0)
    moment = upstream * length
    q_share = (slot * column_tiles + column) * queries + query
    tl.store(q_shares + q_share, tl.sum(moment * g_weight, 1), mask=has_query)
    g_share = (slot * row_tiles + row) * items + item
    tl.store(g_shares + g_share, tl.sum(moment * q_weight, 0), mask=has_item)
    steep = upstream * q_weight * g_weight / tl.where(length == 0, 1.0, length)
    tl.store(slope + slot * queries * items + place, tl.where(length == 0, 0.0, steep), mask=mask)


@triton.jit
def part_gradients(
    slope,
    features,
    others,
    result,
    first,
    rows,
    other_rows,
    parts,
    size,
    stride,
    part_stride,
    other_stride,
    other_part,
    slope_stride,
    other_slope_stride,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Program (tile of rows, tile of features, index of the part relative to `first`).

    result = sum_j slope_ij (f_i - g_j), where g are the `others`.
    The first row of `others` is subtracted from f and g: a common offset would only cost precision.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    place = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    slot = tl.program_id(2).to(tl.int64)
    part = first + slot
    has_row = row < rows
    inside = place < size
    slope += slot * rows * other_rows
    features += part * part_stride
    others += part * other_part
    origin = tl.load(others + place, mask=inside, other=0.0).to(tl.float32)[None, :]
    total = tl.zeros([BLOCK_N], tl.float32)
    pulled = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for start in range(0, other_rows, BLOCK_K):
        other = (start + tl.arange(0, BLOCK_K)).to(tl.int64)
        has_other = other < other_rows
        steep = tl.load(
            slope + row[:, None] * slope_stride + other[None, :] * other_slope_stride,
            mask=has_row[:, None] & has_other[None, :],
            other=0.0,
        )
        value = tl.load(
            others + other[:, None] * other_stride + place[None, :],
            mask=has_other[:, None] & inside[None, :],
            other=0.0,
        ).to(tl.float32)
        total += tl.sum(steep, 1)
        pulled = tl.dot(steep, value - origin, pulled, input_precision="tf32x3")
    mask = has_row[:, None] & inside[None, :]
    own = tl.load(features + row[:, None] * stride + place[None, :], mask=mask, other=0.0).to(tl.float32)
    target = result + (row[:, None] * parts + part) * size + place[None, :]
    tl.store(target, total[:, None] * (own - origin) - pulled, mask=mask)
