# mypy: disable-error-code="no-untyped-def"
# Kernel arguments are pointers and integers of the device program; only compile-time constants have a type.
"""The STA kernels. Docstrings describe one program of the grid.

Names: a *frame* is one (b, t) pair with index b * T + t; a *cell* is one of the L = H * W positions of a
feature map; a *block* is one of K groups of L / K consecutive cells (whole rows of the map). The streaming
kernels process tiles of (channels, blocks, cells of the block): the sum over the last axis is a block sum
P[t,k,c], and the sum over the first axis is the energy q[t,i].

All sums have a fixed order and there are no atomics, so the same inputs give the same bits. Offsets that grow
with the number of frames or with a stride are 64-bit.

The file is long because the STA ops need a forward and a backward kernel each, all of which use this layout.
"""

import triton
import triton.language as tl

INTERPRETED = bool(triton.knobs.runtime.interpret)


@triton.jit
def _tile(tile, blocks, cells, BLOCK_K: tl.constexpr, BLOCK_I: tl.constexpr):
    """Blocks, cells and mask of a tile. A block longer than BLOCK_I is split into several tiles (splits)."""
    splits = tl.cdiv(cells, BLOCK_I)
    block = (tile // splits) * BLOCK_K + tl.arange(0, BLOCK_K)
    place = (tile % splits) * BLOCK_I + tl.arange(0, BLOCK_I)
    inside = (block < blocks)[:, None] & (place < cells)[None, :]
    return block, block[:, None] * cells + place[None, :], inside


@triton.jit
def _cell_offset(cell, width, stride_h, stride_w, FLAT: tl.constexpr):
    """Memory offset of a cell. With FLAT, all cells of the plane have the constant stride `stride_w`."""
    if FLAT:
        return cell.to(tl.int64) * stride_w
    else:  # noqa: RET505 (a branch at compile time)
        return (cell // width).to(tl.int64) * stride_h + (cell % width).to(tl.int64) * stride_w


@triton.jit
def _frame_offset(frame, frames, stride_b, stride_t):
    return (frame // frames).to(tl.int64) * stride_b + (frame % frames).to(tl.int64) * stride_t


@triton.jit
def _if_valid(mask, valid, frame):
    """The mask, or all False in an invalid frame."""
    return tl.where(
        tl.load(valid + frame) != 0, mask, False
    )  # the interpreter does not support `&` of a block and a scalar


@triton.jit
def channel_sums(
    x,
    valid,
    energy,
    sums,
    frames,
    channels,
    blocks,
    cells,
    width,
    stride_b,
    stride_t,
    stride_c,
    stride_h,
    stride_w,
    FLAT: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Reads the feature map once. Program (frame, chunk of channels, tile of cells).

    energy[frame, chunk, cell] = sum of x^2 over the chunk;
    sums[frame, block, split, channel] = sum of x over the cells of the tile (skipped if None).
    """
    frame = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    tile = tl.program_id(2)
    block, cell, inside = _tile(tile, blocks, cells, BLOCK_K, BLOCK_I)
    readable = inside
    if valid is not None:
        readable = _if_valid(inside, valid, frame)
    x += _frame_offset(frame, frames, stride_b, stride_t)
    offset = _cell_offset(cell, width, stride_h, stride_w, FLAT)
    splits = tl.cdiv(cells, BLOCK_I)
    row = (frame * blocks + block) * splits + tile % splits
    square = tl.zeros([BLOCK_C, BLOCK_K, BLOCK_I], tl.float32)
    for start in range(chunk * CHUNK, tl.minimum(channels, (chunk + 1) * CHUNK), BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        mask = (channel < channels)[:, None, None] & readable[None, :, :]
        pointer = x + (channel.to(tl.int64) * stride_c)[:, None, None] + offset[None, :, :]
        value = tl.load(pointer, mask=mask, other=0.0).to(tl.float32)
        square += value * value
        if sums is not None:
            mask = (channel < channels)[:, None] & (block < blocks)[None, :]
            tl.store(sums + row[None, :] * channels + channel[:, None], tl.sum(value, 2), mask=mask)
    row = (frame * tl.num_programs(1) + chunk) * (blocks * cells)
    tl.store(energy + row + cell, tl.sum(square, 0), mask=inside)


@triton.jit
def _energy(energy, chunks, size, cell, inside, ROOT: tl.constexpr, BLOCK_N: tl.constexpr):
    """Energy of a tile of one frame: the sum of squares over all chunks or, with ROOT, its square root."""
    total = tl.zeros(cell.shape, tl.float32)
    for start in range(0, chunks, BLOCK_N):
        chunk = start + tl.arange(0, BLOCK_N)
        mask = (chunk < chunks)[:, None, None] & inside[None, :, :]
        total += tl.sum(
            tl.load(energy + chunk[:, None, None] * size + cell[None, :, :], mask=mask, other=0.0), 0
        )
    if ROOT:
        total = tl.sqrt(total)
    return total


@triton.jit
def normalize_energy(
    energy,
    valid,
    attention,
    norm,
    mass,
    chunks,
    blocks,
    cells,
    ROOT: tl.constexpr,
    L2: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Program (frame). attention = q / norm, norm = sum q or ||q||_2; mass[frame, block] = block sums of
    the attention (skipped if None). A frame of zeros gets uniform attention, an invalid frame zeros.
    """
    frame = tl.program_id(0).to(tl.int64)
    size = blocks * cells
    energy += frame * chunks * size
    splits = tl.cdiv(cells, BLOCK_I)
    total = tl.zeros([BLOCK_K, BLOCK_I], tl.float32)
    for tile in range(tl.cdiv(blocks, BLOCK_K) * splits):
        _, cell, inside = _tile(tile, blocks, cells, BLOCK_K, BLOCK_I)
        q = _energy(energy, chunks, size, cell, inside, ROOT, BLOCK_N)
        if L2:
            total += q * q
        else:
            total += q
    scale = tl.sum(tl.sum(total, 1), 0)
    uniform = 1.0 / size
    if L2:
        scale = tl.sqrt(scale)
        uniform = 1.0 / tl.sqrt(size.to(tl.float32))
    if valid is not None:
        uniform = tl.where(tl.load(valid + frame) != 0, uniform, 0.0)
    tl.store(norm + frame, scale)
    for group in range(tl.cdiv(blocks, BLOCK_K)):
        part = tl.zeros([BLOCK_K], tl.float32)
        for split in range(splits):
            _, cell, inside = _tile(group * splits + split, blocks, cells, BLOCK_K, BLOCK_I)
            q = _energy(energy, chunks, size, cell, inside, ROOT, BLOCK_N)
            weight = tl.where(scale == 0, uniform, q / tl.where(scale == 0, 1.0, scale))
            tl.store(attention + frame * size + cell, weight, mask=inside)
            part += tl.sum(tl.where(inside, weight, 0.0), 1)
        if mass is not None:
            block = group * BLOCK_K + tl.arange(0, BLOCK_K)
            tl.store(mass + frame * blocks + block, part, mask=block < blocks)


@triton.jit
def block_mass(attention, valid, mass, blocks, cells, BLOCK_K: tl.constexpr, BLOCK_I: tl.constexpr):
    """Program (frame). mass[frame, block] = sum of |attention| over the block."""
    frame = tl.program_id(0).to(tl.int64)
    splits = tl.cdiv(cells, BLOCK_I)
    for group in range(tl.cdiv(blocks, BLOCK_K)):
        part = tl.zeros([BLOCK_K], tl.float32)
        for split in range(splits):
            _, cell, readable = _tile(group * splits + split, blocks, cells, BLOCK_K, BLOCK_I)
            if valid is not None:
                readable = _if_valid(readable, valid, frame)
            part += tl.sum(
                tl.abs(tl.load(attention + frame * (blocks * cells) + cell, mask=readable, other=0.0)), 1
            )
        block = group * BLOCK_K + tl.arange(0, BLOCK_K)
        tl.store(mass + frame * blocks + block, part, mask=block < blocks)


@triton.jit
def clip_scores(
    mass,
    valid,
    sums,
    scores,
    total,
    choice,
    pooled,
    frames,
    channels,
    blocks,
    size,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Program (clip, chunk of channels). total = sum_t mass; scores = mass / total, uniform over the valid
    frames where total is 0; choice = first frame with the largest score, -1 without a valid frame.

    If sums is given: pooled = [sum_k P[choice_k, k] / L, sum_k sum_t scores P / L]. Every chunk recomputes
    the scores (few values); only the first chunk writes them.
    """
    clip = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    channel = part * BLOCK_C + tl.arange(0, BLOCK_C)
    has_channel = channel < channels
    chosen = tl.zeros([BLOCK_C], tl.float32)
    blended = tl.zeros([BLOCK_C], tl.float32)
    for first_block in range(0, blocks, BLOCK_K):
        block = first_block + tl.arange(0, BLOCK_K)
        has_block = block < blocks
        mass_sum = tl.zeros([BLOCK_K], tl.float32)
        count = tl.zeros([BLOCK_K], tl.float32)
        for first in range(0, frames, BLOCK_T):
            frame = first + tl.arange(0, BLOCK_T)
            live = frame < frames
            if valid is not None:
                live = live & (tl.load(valid + clip * frames + frame, mask=live, other=0) != 0)
            row = (clip * frames + frame)[:, None] * blocks + block[None, :]
            mask = live[:, None] & has_block[None, :]
            mass_sum += tl.sum(tl.load(mass + row, mask=mask, other=0.0), 0)
            count += tl.sum(mask.to(tl.float32), 0)
        best = tl.full([BLOCK_K], -1.0, tl.float32)
        best_frame = tl.full([BLOCK_K], -1, tl.int32)
        for first in range(0, frames, BLOCK_T):
            frame = first + tl.arange(0, BLOCK_T)
            live = frame < frames
            if valid is not None:
                live = live & (tl.load(valid + clip * frames + frame, mask=live, other=0) != 0)
            row = (clip * frames + frame)[:, None] * blocks + block[None, :]
            mask = live[:, None] & has_block[None, :]
            value = tl.load(mass + row, mask=mask, other=0.0)
            even = 1.0 / tl.maximum(count, 1.0)
            value = tl.where(
                mass_sum[None, :] == 0, even[None, :], value / tl.where(mass_sum == 0, 1.0, mass_sum)[None, :]
            )
            value = tl.where(mask, value, 0.0)
            every = (frame < frames)[:, None] & has_block[None, :]
            if part == 0:
                tl.store(scores + row, value, mask=every)
            # NaN is the largest score, as in torch.argmax.
            key = tl.where(value != value, float("inf"), tl.where(mask, value, -1.0))
            top = tl.max(key, 0)
            top_frame = first + tl.argmax(key, 0)
            better = top > best
            best = tl.where(better, top, best)
            best_frame = tl.where(better, top_frame, best_frame)
            if sums is not None:
                tile = tl.load(
                    sums + row[:, :, None] * channels + channel[None, None, :],
                    mask=mask[:, :, None] & has_channel[None, None, :],
                    other=0.0,
                )
                blended += tl.sum(tl.sum(value[:, :, None] * tile, 0), 0)
        if part == 0:
            tl.store(total + clip * blocks + block, mass_sum, mask=has_block)
            if choice is not None:
                tl.store(choice + clip * blocks + block, best_frame.to(tl.int64), mask=has_block)
        if sums is not None:
            row = (clip * frames + best_frame) * blocks + block
            mask = (has_block & (best_frame >= 0))[:, None] & has_channel[None, :]
            chosen += tl.sum(
                tl.load(sums + row[:, None] * channels + channel[None, :], mask=mask, other=0.0), 0
            )
    if sums is not None:
        out = pooled + clip * 2 * channels + channel
        tl.store(out, (chosen / size).to(pooled.dtype.element_ty), mask=has_channel)
        tl.store(out + channels, (blended / size).to(pooled.dtype.element_ty), mask=has_channel)


@triton.jit
def score_gradient(
    grad_scores,
    grad_pooled,
    sums,
    valid,
    scores,
    slope,
    mean_slope,
    frames,
    channels,
    size,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Program (clip, block). slope = dS = grad_scores + 1/L sum_c df_sum[c] P[t,k,c] (either may be None),
    mean_slope[clip, block] = sum_t dS S.
    """
    clip = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    blocks = tl.num_programs(1)
    mean = tl.zeros([BLOCK_T], tl.float32)
    for first in range(0, frames, BLOCK_T):
        frame = first + tl.arange(0, BLOCK_T)
        live = frame < frames
        if valid is not None:
            live = live & (tl.load(valid + clip * frames + frame, mask=live, other=0) != 0)
        row = (clip * frames + frame) * blocks + block
        gradient = tl.zeros([BLOCK_T], tl.float32)
        if grad_scores is not None:
            gradient += tl.load(grad_scores + row, mask=live, other=0.0).to(tl.float32)
        if grad_pooled is not None:
            product = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
            for start in range(0, channels, BLOCK_C):
                channel = start + tl.arange(0, BLOCK_C)
                has_channel = channel < channels
                pointer = grad_pooled + clip * 2 * channels + channels + channel
                weight = tl.load(pointer, mask=has_channel, other=0.0).to(tl.float32)
                mask = live[:, None] & has_channel[None, :]
                product += weight[None, :] * tl.load(
                    sums + row[:, None] * channels + channel[None, :], mask=mask, other=0.0
                )
            gradient += tl.sum(product, 1) / size
        mean += gradient * tl.load(scores + row, mask=live, other=0.0)
        tl.store(slope + row, gradient, mask=frame < frames)
    tl.store(mean_slope + clip * blocks + block, tl.sum(mean, 0))


@triton.jit
def _mass_gradient(slope, mean_slope, total, frame, frames, blocks, block):
    """Gradient of the block mass, ds = (dS - sum_t dS S) / total, 0 where total is 0."""
    clip_row = (frame // frames) * blocks + block
    mask = block < blocks
    scale = tl.load(total + clip_row, mask=mask, other=0.0)
    rise = tl.load(slope + frame * blocks + block, mask=mask, other=0.0)
    rise -= tl.load(mean_slope + clip_row, mask=mask, other=0.0)
    return tl.where(scale == 0, 0.0, rise / tl.where(scale == 0, 1.0, scale))


@triton.jit
def _attention_gradient(grad_attention, ds, offset, inside):
    gradient = tl.zeros(inside.shape, tl.float32)
    if grad_attention is not None:
        gradient += tl.load(grad_attention + offset, mask=inside, other=0.0).to(tl.float32)
    if ds is not None:
        gradient += tl.where(inside, ds[:, None], 0.0)
    return gradient


@triton.jit
def energy_gradient(
    grad_attention,
    slope,
    mean_slope,
    total,
    valid,
    attention,
    norm,
    weight,
    frames,
    blocks,
    cells,
    ROOT: tl.constexpr,
    L2: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Program (frame). weight[frame, cell] such that x * weight is the gradient through the attention.

    dg = grad_attention + ds (either may be None); dq = (dg - sum dg g) / Q, or (dg - g sum dg g) / Q for
    the L2 norm; weight = 2 dq or, with ROOT, dq / q. Zero for a frame that is zero or invalid.
    """
    frame = tl.program_id(0).to(tl.int64)
    row = frame * (blocks * cells)
    scale = tl.load(norm + frame)
    through = scale != 0
    if valid is not None:
        through = through & (tl.load(valid + frame) != 0)
    tiles = tl.cdiv(blocks, BLOCK_K) * tl.cdiv(cells, BLOCK_I)
    product = tl.zeros([BLOCK_K, BLOCK_I], tl.float32)
    for tile in range(tiles):
        block, cell, inside = _tile(tile, blocks, cells, BLOCK_K, BLOCK_I)
        ds = None
        if slope is not None:
            ds = _mass_gradient(slope, mean_slope, total, frame, frames, blocks, block)
        dg = _attention_gradient(grad_attention, ds, row + cell, inside)
        product += dg * tl.load(attention + row + cell, mask=inside, other=0.0)
    mean = tl.sum(tl.sum(product, 1), 0)
    for tile in range(tiles):
        block, cell, inside = _tile(tile, blocks, cells, BLOCK_K, BLOCK_I)
        ds = None
        if slope is not None:
            ds = _mass_gradient(slope, mean_slope, total, frame, frames, blocks, block)
        dg = _attention_gradient(grad_attention, ds, row + cell, inside)
        g = tl.load(attention + row + cell, mask=inside, other=0.0)
        divisor = tl.where(through, scale, 1.0)
        dq = (dg - g * mean if L2 else dg - mean) / divisor
        if ROOT:
            q = g * divisor
            dq = tl.where(q == 0, 0.0, dq / tl.where(q == 0, 1.0, q))
        else:
            dq = 2.0 * dq
        tl.store(weight + row + cell, tl.where(through, dq, 0.0), mask=inside)


@triton.jit
def map_gradient(
    x,
    dx,
    valid,
    weight,
    grad_pooled,
    scores,
    choice,
    frames,
    channels,
    blocks,
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
    CHUNK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Reads the map once and writes its gradient once. Program as in `channel_sums`.

    dx = A + x weight, A[t,k,c] = (1[t = choice_k] df_max[c] + S[t,k] df_sum[c]) / L (0 without grad_pooled).
    """
    frame = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    block, cell, inside = _tile(tl.program_id(2), blocks, cells, BLOCK_K, BLOCK_I)
    readable = inside
    if valid is not None:
        readable = _if_valid(inside, valid, frame)
    x += _frame_offset(frame, frames, stride_b, stride_t)
    dx += _frame_offset(frame, frames, out_b, out_t)
    offset = _cell_offset(cell, width, stride_h, stride_w, FLAT)
    out_offset = _cell_offset(cell, width, out_h, out_w, FLAT)
    slope = tl.load(weight + frame * (blocks * cells) + cell, mask=readable, other=0.0)
    if grad_pooled is not None:
        clip = frame // frames
        size = blocks * cells
        share = tl.load(scores + frame * blocks + block, mask=block < blocks, other=0.0) / size
        winner = tl.load(choice + clip * blocks + block, mask=block < blocks, other=-1)
        pick = tl.where(winner == frame % frames, 1.0 / size, 0.0)
    for start in range(chunk * CHUNK, tl.minimum(channels, (chunk + 1) * CHUNK), BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        has_channel = channel < channels
        mask = has_channel[:, None, None] & readable[None, :, :]
        pointer = x + (channel.to(tl.int64) * stride_c)[:, None, None] + offset[None, :, :]
        value = tl.load(pointer, mask=mask, other=0.0).to(tl.float32) * slope[None, :, :]
        if grad_pooled is not None:
            gradient = grad_pooled + clip * 2 * channels + channel
            df_max = tl.load(gradient, mask=has_channel, other=0.0).to(tl.float32)
            df_sum = tl.load(gradient + channels, mask=has_channel, other=0.0).to(tl.float32)
            shared = df_max[:, None] * pick[None, :] + df_sum[:, None] * share[None, :]
            value += shared[:, :, None]
        value = tl.where(readable[None, :, :], value, 0.0)
        pointer = dx + (channel.to(tl.int64) * out_c)[:, None, None] + out_offset[None, :, :]
        tl.store(pointer, value.to(dx.dtype.element_ty), mask=has_channel[:, None, None] & inside[None, :, :])


@triton.jit
def mass_gradient(
    slope,
    mean_slope,
    total,
    valid,
    attention,
    dattention,
    frames,
    blocks,
    cells,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Program (frame). dattention = ds sign(attention)."""
    frame = tl.program_id(0).to(tl.int64)
    row = frame * (blocks * cells)
    for tile in range(tl.cdiv(blocks, BLOCK_K) * tl.cdiv(cells, BLOCK_I)):
        block, cell, inside = _tile(tile, blocks, cells, BLOCK_K, BLOCK_I)
        readable = inside
        if valid is not None:
            readable = _if_valid(inside, valid, frame)
        ds = _mass_gradient(slope, mean_slope, total, frame, frames, blocks, block)[:, None]
        g = tl.load(attention + row + cell, mask=readable, other=0.0)
        gradient = tl.where(g > 0, ds, tl.where(g < 0, -ds, 0.0))
        tl.store(dattention + row + cell, tl.where(readable, gradient, 0.0), mask=inside)


@triton.jit
def fuse(
    x,
    scores,
    valid,
    fused,
    choice,
    frames,
    channels,
    blocks,
    cells,
    width,
    stride_b,
    stride_t,
    stride_c,
    stride_h,
    stride_w,
    FLAT: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Program (clip, chunk of channels, tile of cells): loops over the frames, accumulates the weighted sum
    and keeps the values of the best frame so far.
    """
    clip = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    block, cell, inside = _tile(tl.program_id(2), blocks, cells, BLOCK_K, BLOCK_I)
    channel = chunk * BLOCK_C + tl.arange(0, BLOCK_C)
    has_channel = (channel < channels)[:, None, None]
    offset = _cell_offset(cell, width, stride_h, stride_w, FLAT)
    x += clip * stride_b
    pointer = x + (channel.to(tl.int64) * stride_c)[:, None, None] + offset[None, :, :]
    best = tl.full([BLOCK_K], -float("inf"), tl.float32)
    best_frame = tl.full([BLOCK_K], -1, tl.int64)
    chosen = tl.zeros([BLOCK_C, BLOCK_K, BLOCK_I], tl.float32)
    blended = tl.zeros([BLOCK_C, BLOCK_K, BLOCK_I], tl.float32)
    for frame in range(frames):
        readable = inside
        live = block < blocks
        if valid is not None:
            readable = _if_valid(inside, valid, clip * frames + frame)
            live = _if_valid(live, valid, clip * frames + frame)
        score = tl.load(scores + (clip * frames + frame) * blocks + block, mask=live, other=0.0)
        # NaN is the largest score, as in torch.argmax.
        better = live & ((score > best) | ((score != score) & (best == best)) | (best_frame < 0))
        best = tl.where(better, score, best)
        best_frame = tl.where(better, frame, best_frame)
        value = tl.load(pointer, mask=has_channel & readable[None, :, :], other=0.0).to(tl.float32)
        chosen = tl.where(better[None, :, None], value, chosen)
        blended += value * score[None, :, None]
        pointer += stride_t
    out = fused + (clip * 2 * channels + channel)[:, None, None] * (blocks * cells) + cell[None, :, :]
    mask = has_channel & inside[None, :, :]
    tl.store(out, chosen.to(fused.dtype.element_ty), mask=mask)
    out += channels * (blocks * cells)
    tl.store(out, blended.to(fused.dtype.element_ty), mask=mask)
    if (chunk == 0) & (tl.program_id(2) % tl.cdiv(cells, BLOCK_I) == 0):
        tl.store(choice + clip * blocks + block, best_frame, mask=block < blocks)


@triton.jit
def fuse_gradient(
    grad,
    x,
    scores,
    choice,
    valid,
    dx,
    parts,
    frames,
    channels,
    blocks,
    cells,
    grad_b,
    grad_c,
    grad_h,
    grad_w,
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
    CHUNK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Program as in `channel_sums`. dx = S df_2 + 1[t = choice] df_1;
    parts[frame, block, split, chunk] = sum over the chunk and the tile's cells of df_2 x.
    """
    frame = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    tile = tl.program_id(2)
    clip = frame // frames
    block, cell, inside = _tile(tile, blocks, cells, BLOCK_K, BLOCK_I)
    readable = inside
    if valid is not None:
        readable = _if_valid(inside, valid, frame)
    grad += clip * grad_b
    x += _frame_offset(frame, frames, stride_b, stride_t)
    dx += _frame_offset(frame, frames, out_b, out_t)
    grad_offset = _cell_offset(cell, width, grad_h, grad_w, FLAT)
    offset = _cell_offset(cell, width, stride_h, stride_w, FLAT)
    out_offset = _cell_offset(cell, width, out_h, out_w, FLAT)
    share = tl.load(scores + frame * blocks + block, mask=block < blocks, other=0.0)[None, :, None]
    winner = tl.load(choice + clip * blocks + block, mask=block < blocks, other=-1)
    pick = (winner == frame % frames)[None, :, None]
    product = tl.zeros([BLOCK_C, BLOCK_K, BLOCK_I], tl.float32)
    for start in range(chunk * CHUNK, tl.minimum(channels, (chunk + 1) * CHUNK), BLOCK_C):
        channel = (start + tl.arange(0, BLOCK_C)).to(tl.int64)[:, None, None]
        mask = (channel < channels) & readable[None, :, :]
        pointer = grad + channel * grad_c + grad_offset[None, :, :]
        df_max = tl.load(pointer, mask=mask & pick, other=0.0).to(tl.float32)
        pointer = grad + (channel + channels) * grad_c + grad_offset[None, :, :]
        df_sum = tl.load(pointer, mask=mask, other=0.0).to(tl.float32)
        value = tl.load(x + channel * stride_c + offset[None, :, :], mask=mask, other=0.0).to(tl.float32)
        product += df_sum * value
        gradient = tl.where(readable[None, :, :], df_max + df_sum * share, 0.0).to(dx.dtype.element_ty)
        pointer = dx + channel * out_c + out_offset[None, :, :]
        tl.store(pointer, gradient, mask=(channel < channels) & inside[None, :, :])
    splits = tl.cdiv(cells, BLOCK_I)
    row = ((frame * blocks + block) * splits + tile % splits) * tl.num_programs(1) + chunk
    tl.store(parts + row, tl.sum(tl.sum(product, 2), 0), mask=block < blocks)


@triton.jit
def pair_distance(attention, pairs, distances, frames, count, size, BLOCK_L: tl.constexpr):
    """Program (pair of a clip). ||g_i - g_j||_F."""
    pair = tl.program_id(0).to(tl.int64)
    clip = pair // count
    first = attention + (clip * frames + tl.load(pairs + 2 * pair)) * size
    second = attention + (clip * frames + tl.load(pairs + 2 * pair + 1)) * size
    square = tl.zeros([BLOCK_L], tl.float32)
    for start in range(0, size, BLOCK_L):
        cell = start + tl.arange(0, BLOCK_L)
        mask = cell < size
        step = tl.load(first + cell, mask=mask, other=0.0) - tl.load(second + cell, mask=mask, other=0.0)
        square += step * step
    tl.store(distances + pair, tl.sqrt(tl.sum(square, 0)))


@triton.jit
def pair_gradient(
    grad,
    attention,
    pairs,
    distances,
    dattention,
    frames,
    count,
    size,
    BLOCK_M: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Program (frame, tile of cells): sum over the frame's pairs of (g - g_other) grad / (count distance).

    Each program iterates over all pairs of its clip, so no two programs write to the same element.
    """
    frame = tl.program_id(0).to(tl.int64)
    clip = frame // frames
    own = frame % frames
    cell = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    inside = cell < size
    here = tl.load(attention + frame * size + cell, mask=inside, other=0.0)
    gradient = tl.zeros([BLOCK_M, BLOCK_L], tl.float32)
    for start in range(0, count, BLOCK_M):
        pair = start + tl.arange(0, BLOCK_M)
        has_pair = pair < count
        row = clip * count + pair
        i = tl.load(pairs + 2 * row, mask=has_pair, other=-1)
        j = tl.load(pairs + 2 * row + 1, mask=has_pair, other=-1)
        other = tl.where(i == own, j, i)
        mine = has_pair & ((i == own) | (j == own))
        distance = tl.load(distances + row, mask=mine, other=0.0)
        slope = tl.where(distance == 0, 0.0, 1.0 / tl.where(distance == 0, 1.0, distance))
        there = attention + ((clip * frames + other) * size)[:, None] + cell[None, :]
        step = here[None, :] - tl.load(there, mask=mine[:, None] & inside[None, :], other=0.0)
        gradient += tl.where(mine[:, None], slope[:, None] * step, 0.0)
    scale = tl.load(grad + clip) / count
    tl.store(dattention + frame * size + cell, tl.sum(gradient, 0) * scale, mask=inside)
