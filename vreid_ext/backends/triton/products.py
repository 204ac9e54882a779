# mypy: disable-error-code="no-untyped-def"
# Kernel arguments are pointers and integers of the device program; only compile-time constants have a type.
"""Tiles of a matrix of dot products, as used by the kernels of mining and of the part metric."""

import triton
import triton.language as tl


@triton.jit
def grouped_tile(row_tiles, column_tiles, GROUP: tl.constexpr):
    """Row and column of this program's tile. Consecutive programs share GROUP tile rows, for cache reuse."""
    program = tl.program_id(0)
    group = program // (GROUP * column_tiles)
    height = tl.minimum(row_tiles - group * GROUP, GROUP)
    within = program - group * (GROUP * column_tiles)
    return group * GROUP + within % height, within // height


@triton.jit
def row_products(
    left,
    right,
    row,
    column,
    has_row,
    has_column,
    size,
    left_stride,
    right_stride,
    BLOCK_K: tl.constexpr,
):
    """Dot products of rows of `left` with rows of `right`. `size` must be a multiple of BLOCK_K. float32
    products are computed as three TF32 products each.
    """
    product = tl.zeros([row.shape[0], column.shape[0]], tl.float32)
    for start in range(0, size, BLOCK_K):
        place = start + tl.arange(0, BLOCK_K)
        a = tl.load(left + row[:, None] * left_stride + place[None, :], mask=has_row[:, None], other=0.0)
        b = tl.load(
            right + column[None, :] * right_stride + place[:, None], mask=has_column[None, :], other=0.0
        )
        product = tl.dot(a, b, product, input_precision="tf32x3")
    return product
