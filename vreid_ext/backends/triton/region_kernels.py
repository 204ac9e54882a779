# mypy: disable-error-code="no-untyped-def"
# Kernel arguments are pointers and integers of the device program; only compile-time constants have a type.
"""The DRSTA kernels. Docstrings describe one program of the grid.

Names: a *frame* is one (b, t) pair with index b * T + t; a *cell* is one of the L = H * W positions of a
feature map; a *region* is one of K attentions. A map is processed in tiles of channels and cells. The K
regions are one padded block, so the map is read once for any K.

All sums have a fixed order and there are no atomics, so the same inputs give the same bits.
"""

import triton
import triton.language as tl

from vreid_ext.backends.triton.sta_kernels import _cell_offset, _frame_offset


@triton.jit
def gather_regions(
    x,
    weights,
    features,
    frames,
    channels,
    regions,
    cells,
    width,
    stride_b,
    stride_t,
    stride_c,
    stride_h,
    stride_w,
    FLAT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Reads the feature map once. Program (frame, tile of channels): features = weights x."""
    frame = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    region = tl.arange(0, BLOCK_K)
    has_channel = channel < channels
    has_region = region < regions
    x += _frame_offset(frame, frames, stride_b, stride_t)
    weights += frame * regions * cells
    total = tl.zeros([BLOCK_K, BLOCK_C], tl.float32)
    for start in range(0, cells, BLOCK_I):
        cell = start + tl.arange(0, BLOCK_I)
        has_cell = cell < cells
        offset = _cell_offset(cell, width, stride_h, stride_w, FLAT)
        pointer = x + (channel.to(tl.int64) * stride_c)[None, :] + offset[:, None]
        value = tl.load(pointer, mask=has_cell[:, None] & has_channel[None, :], other=0.0).to(tl.float32)
        weight = tl.load(
            weights + region[:, None] * cells + cell[None, :],
            mask=has_region[:, None] & has_cell[None, :],
            other=0.0,
        )
        total += tl.sum(weight[:, :, None] * value[None, :, :], 1)
    features += (frame * regions + region)[:, None] * channels
    tl.store(features + channel[None, :], total, mask=has_region[:, None] & has_channel[None, :])


@triton.jit
def _products(rows, frame, regions, cells, ROOT: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_I: tl.constexpr):
    """W W^T of one frame, with W = rows or, with ROOT, their square roots. Padded regions give zeros."""
    region = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_K, BLOCK_K], tl.float32)
    for start in range(0, cells, BLOCK_I):
        cell = start + tl.arange(0, BLOCK_I)
        mask = (region < regions)[:, None] & (cell < cells)[None, :]
        place = (frame * regions + region[:, None]) * cells + cell[None, :]
        value = tl.load(rows + place, mask=mask, other=0.0)
        if ROOT:
            value = tl.sqrt(value)
        total += tl.sum(value[:, None, :] * value[None, :, :], 2)
    return total


@triton.jit
def _residual(products, regions, UNIT: tl.constexpr, BLOCK_K: tl.constexpr):
    """W W^T - I. With UNIT the rows have norm one by construction, and the diagonal is set to zero."""
    region = tl.arange(0, BLOCK_K)
    diagonal = region[:, None] == region[None, :]
    if UNIT:
        return tl.where(diagonal, 0.0, products)
    else:  # noqa: RET505 (a branch at compile time)
        return tl.where(diagonal & (region < regions)[:, None], products - 1.0, products)


@triton.jit
def overlap(
    rows,
    result,
    regions,
    cells,
    ROOT: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Program (frame): ||W W^T - I||^2."""
    frame = tl.program_id(0).to(tl.int64)
    products = _products(rows, frame, regions, cells, ROOT, BLOCK_K, BLOCK_I)
    residual = _residual(products, regions, UNIT, BLOCK_K)
    tl.store(result + frame, tl.sum(tl.sum(residual * residual, 1), 0))


@triton.jit
def overlap_gradient(
    grad,
    rows,
    drows,
    regions,
    cells,
    ROOT: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Program (frame). The gradient with respect to the rows, with A = W W^T - I:

    4 A W or, with ROOT, 2 (A W) / W (zero where W is zero). With UNIT the result is 2 W (A W), the product
    of the rows and their gradient, which needs no division. From it the caller computes the gradient of the
    softmax: it subtracts the rows times the sum of the result over the cells.
    """
    frame = tl.program_id(0).to(tl.int64)
    region = tl.arange(0, BLOCK_K)
    products = _products(rows, frame, regions, cells, ROOT, BLOCK_K, BLOCK_I)
    residual = _residual(products, regions, UNIT, BLOCK_K)
    scale = tl.load(grad + frame)
    for start in range(0, cells, BLOCK_I):
        cell = start + tl.arange(0, BLOCK_I)
        mask = (region < regions)[:, None] & (cell < cells)[None, :]
        place = (frame * regions + region[:, None]) * cells + cell[None, :]
        value = tl.load(rows + place, mask=mask, other=0.0)
        if ROOT:
            value = tl.sqrt(value)
        slope = tl.sum(residual[:, :, None] * value[None, :, :], 1)
        if UNIT:
            slope = 2.0 * value * slope
        elif ROOT:
            slope = tl.where(value == 0, 0.0, 2.0 * slope / tl.where(value == 0, 1.0, value))
        else:
            slope = 4.0 * slope
        tl.store(drows + place, scale * slope, mask=mask)


@triton.jit
def region_gradients(
    x,
    dx,
    weights,
    grad,
    parts,
    frames,
    channels,
    regions,
    cells,
    width,
    stride_b,
    stride_t,
    stride_c,
    stride_h,
    stride_w,
    out_b,
    out_t,
    out_c,
    out_h,
    out_w,
    FLAT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Reads x once and writes dx once. Program (frame, tile of channels): dx = weights^T grad, and the tile's
    contribution to dweights = grad x^T in parts[frame, tile].
    """
    frame = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    channel = tile * BLOCK_C + tl.arange(0, BLOCK_C)
    region = tl.arange(0, BLOCK_K)
    has_channel = channel < channels
    has_region = region < regions
    x += _frame_offset(frame, frames, stride_b, stride_t)
    dx += _frame_offset(frame, frames, out_b, out_t)
    weights += frame * regions * cells
    parts += (frame * tl.num_programs(1) + tile) * regions * cells
    gradient = tl.load(
        grad + ((frame * regions + region) * channels)[:, None] + channel[None, :],
        mask=has_region[:, None] & has_channel[None, :],
        other=0.0,
    ).to(tl.float32)
    for start in range(0, cells, BLOCK_I):
        cell = start + tl.arange(0, BLOCK_I)
        has_cell = cell < cells
        mask = has_cell[:, None] & has_channel[None, :]
        offset = _cell_offset(cell, width, stride_h, stride_w, FLAT)
        pointer = x + (channel.to(tl.int64) * stride_c)[None, :] + offset[:, None]
        value = tl.load(pointer, mask=mask, other=0.0).to(tl.float32)
        place = region[:, None] * cells + cell[None, :]
        has_place = has_region[:, None] & has_cell[None, :]
        weight = tl.load(weights + place, mask=has_place, other=0.0)
        tl.store(parts + place, tl.sum(gradient[:, None, :] * value[None, :, :], 2), mask=has_place)
        spread = tl.sum(weight[:, :, None] * gradient[:, None, :], 0)
        offset = _cell_offset(cell, width, out_h, out_w, FLAT)
        tl.store(dx + (channel.to(tl.int64) * out_c)[None, :] + offset[:, None], spread, mask=mask)


@triton.jit
def pool_frames(weights, features, valid, pooled, frames, regions, size, BLOCK_D: tl.constexpr):
    """Program (clip, region, tile of the feature): pooled = sum of weight * feature over the valid frames."""
    clip = tl.program_id(0).to(tl.int64)
    region = tl.program_id(1)
    place = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = place < size
    total = tl.zeros([BLOCK_D], tl.float32)
    for t in range(frames):
        mask = inside
        if valid is not None:
            mask = tl.where(tl.load(valid + clip * frames + t) != 0, inside, False)
        row = (clip * frames + t) * regions + region
        total += tl.load(weights + row) * tl.load(features + row * size + place, mask=mask, other=0.0).to(
            tl.float32
        )
    tl.store(pooled + (clip * regions + region) * size + place, total, mask=inside)


@triton.jit
def frame_gradients(
    grad, weights, features, valid, dweights, dfeatures, frames, regions, size, BLOCK_D: tl.constexpr
):
    """Program (clip, frame, region): dfeatures = weight grad; dweights = features . grad."""
    row = (tl.program_id(0).to(tl.int64) * frames + tl.program_id(1)) * regions + tl.program_id(2)
    source = tl.program_id(0).to(tl.int64) * regions + tl.program_id(2)
    weight = tl.load(weights + row)
    total = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, size, BLOCK_D):
        place = start + tl.arange(0, BLOCK_D)
        inside = place < size
        readable = inside
        if valid is not None:
            readable = tl.where(
                tl.load(valid + tl.program_id(0).to(tl.int64) * frames + tl.program_id(1)) != 0, inside, False
            )
        gradient = tl.load(grad + source * size + place, mask=inside, other=0.0).to(tl.float32)
        total += gradient * tl.load(features + row * size + place, mask=readable, other=0.0).to(tl.float32)
        tl.store(dfeatures + row * size + place, weight * gradient, mask=inside)
    tl.store(dweights + row, tl.sum(total, 0))
