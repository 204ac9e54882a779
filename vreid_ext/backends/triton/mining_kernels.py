# mypy: disable-error-code="no-untyped-def"
# Kernel arguments are pointers and integers of the device program; only compile-time constants have a type.
"""The mining kernels. Docstrings describe one program of the grid.

Names: an *anchor* is a row for which pairs are searched, a *candidate* a row that it may be paired with. The
*pair* p = k n + i is the pair of anchor i and kind k. ROOT selects the metric "euclidean", COSINE "cosine",
neither of them "squared".

Tiles of the search for the best candidate finish in any order. Their results are combined by an atomic
maximum of one 64-bit key per anchor and kind: the score in the upper half, the inverted index in the lower
half. The result is deterministic, and among equal scores the smallest index is selected. Sums have a fixed
order.
"""

import triton
import triton.language as tl

from vreid_ext.backends.triton.products import grouped_tile, row_products

_NO_KEY = tl.constexpr(-(2**63))


@triton.jit
def _square_norm(row, size, BLOCK_D: tl.constexpr):
    total = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, size, BLOCK_D):
        place = start + tl.arange(0, BLOCK_D)
        value = tl.load(row + place, mask=place < size, other=0.0).to(tl.float32)
        total += value * value
    return tl.sum(total, 0)


@triton.jit
def _inverse(norm):
    """1 / norm; zero if the squares of the row underflow, NaN if they overflow."""
    zero = norm < 1.0842021724855044e-19  # square root of float32's smallest normal number
    return tl.where(zero, 0.0, norm - norm + 1.0 / tl.where(zero, 1.0, norm))


@triton.jit
def prepare_rows(x, mean, prepared, square, keys, rows, size, stride, width, BLOCK_D: tl.constexpr):
    """Program (row): the row minus `mean` and its squared norm or, if `mean` is None, the L2-normalized row
    and zero. The row is zero-padded to `width`. `keys` (skipped if None) are reset.
    """
    row = tl.program_id(0).to(tl.int64)
    x += row * stride
    prepared += row * width
    if mean is None:
        scale = _inverse(tl.sqrt(_square_norm(x, size, BLOCK_D)))
    total = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, width, BLOCK_D):
        place = start + tl.arange(0, BLOCK_D)
        inside = place < size
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        if mean is None:
            value *= scale
        else:
            value -= tl.load(mean + place, mask=inside, other=0.0)
            total += value * value
        tl.store(prepared + place, value, mask=place < width)
    tl.store(square + row, tl.sum(total, 0))
    if keys is not None:
        tl.store(keys + row, _NO_KEY)
        tl.store(keys + rows + row, _NO_KEY)


@triton.jit
def _offer(keys, anchor, present, score, mask, first, AXIS: tl.constexpr):
    """Update the keys of the anchors with their best candidates, numbered from `first` along AXIS."""
    score = tl.where(score == score, score, float("inf"))  # NaN must surface: treat it as the best score
    best, place = tl.max(tl.where(mask, score, float("-inf")), AXIS, return_indices=True)
    bits = tl.where(best == 0, 0.0, best).to(tl.int32, bitcast=True)  # -0.0 becomes 0.0
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)  # integers that are ordered like the floats
    key = (ordered << 32) | (0xFFFFFFFF - (first + place.to(tl.int64)))
    tl.atomic_max(keys + anchor, key, mask=present & (best > float("-inf")), sem="relaxed")


@triton.jit
def mine(
    anchors,
    anchor_square,
    anchor_label,
    candidates,
    candidate_square,
    candidate_label,
    keys,
    n,
    m,
    width,
    SYMMETRIC: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Program (tile of pairs): update the keys of the tile's anchors with their farthest positive and nearest
    negative.

    If the anchors are the candidates, the distance matrix is SYMMETRIC, and a tile updates the keys of both
    its rows and its columns. Let T be the number of blocks of BLOCK_N rows. Block i is paired with the blocks
    i, i + 1, ..., i + T // 2 (modulo T), which covers all pairs of blocks. Some occur twice, which does not
    change the maximum.
    """
    row_tiles = tl.cdiv(n, BLOCK_N)
    columns = tl.cdiv(m, BLOCK_M)
    if SYMMETRIC:
        columns = (row_tiles // 2 + 1) * (BLOCK_N // BLOCK_M)
    row_tile, column_tile = grouped_tile(row_tiles, columns, GROUP)
    if SYMMETRIC:
        column_tile = (row_tile * (BLOCK_N // BLOCK_M) + column_tile) % (row_tiles * (BLOCK_N // BLOCK_M))
    first_anchor = row_tile.to(tl.int64) * BLOCK_N
    first_candidate = column_tile.to(tl.int64) * BLOCK_M
    anchor = first_anchor + tl.arange(0, BLOCK_N)
    candidate = first_candidate + tl.arange(0, BLOCK_M)
    has_anchor = anchor < n
    has_candidate = candidate < m
    product = row_products(
        anchors, candidates, anchor, candidate, has_anchor, has_candidate, width, width, width, BLOCK_K
    )
    label = tl.load(anchor_label + anchor, mask=has_anchor, other=0)[:, None]
    other_label = tl.load(candidate_label + candidate, mask=has_candidate, other=0)[None, :]
    pair = has_anchor[:, None] & has_candidate[None, :]
    negative = pair & (label != other_label)
    positive = pair & (label == other_label)
    if SYMMETRIC:
        positive = positive & (anchor[:, None] != candidate[None, :])
    square = tl.load(candidate_square + candidate, mask=has_candidate, other=0.0)
    # The squared distance minus the anchor's squared norm: it is ordered like the distance of each metric.
    distance = square[None, :] - 2.0 * product
    _offer(keys, anchor, has_anchor, distance, positive, first_candidate, 1)
    _offer(keys + n, anchor, has_anchor, -distance, negative, first_candidate, 1)
    if SYMMETRIC:
        square = tl.load(anchor_square + anchor, mask=has_anchor, other=0.0)
        distance = square[:, None] - 2.0 * product
        _offer(keys, candidate, has_candidate, distance, positive, first_anchor, 0)
        _offer(keys + n, candidate, has_candidate, -distance, negative, first_anchor, 0)


@triton.jit
def pair_distances(
    x,
    ref,
    keys,
    index,
    distance,
    n,
    m,
    size,
    stride,
    ref_stride,
    ROOT: tl.constexpr,
    COSINE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (anchor, kind): the distance of a pair, from differences; zero without a candidate, NaN if the
    index is out of range. If `keys` is given, the index is decoded from the keys of `mine` and written to
    `index`.
    """
    anchor = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1).to(tl.int64) * n + anchor
    if keys is not None:
        key = tl.load(keys + pair)
        chosen = tl.where(key == _NO_KEY, -1, 0xFFFFFFFF - (key & 0xFFFFFFFF))
        tl.store(index + pair, chosen)
    else:
        chosen = tl.load(index + pair)
    exists = (chosen >= 0) & (chosen < m)
    x += anchor * stride
    ref += tl.where(exists, chosen, 0) * ref_stride
    scale = 1.0
    ref_scale = 1.0
    if COSINE:
        scale = _inverse(tl.sqrt(_square_norm(x, size, BLOCK_D)))
        ref_scale = _inverse(tl.sqrt(_square_norm(ref, size, BLOCK_D)))
    total = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, size, BLOCK_D):
        place = start + tl.arange(0, BLOCK_D)
        inside = place < size
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) * scale
        value -= tl.load(ref + place, mask=inside, other=0.0).to(tl.float32) * ref_scale
        total += value * value
    result = tl.sum(total, 0)
    if ROOT:
        result = tl.sqrt_rn(result)
    if COSINE:
        result = tl.where((scale == 0) | (ref_scale == 0), 1.0, 0.5 * result)
    result = tl.where(exists, result, tl.where(chosen == -1, 0.0, float("nan")))
    tl.store(distance + pair, result)


@triton.jit
def _pull(row, other, norm, other_norm, distance, grad, ROOT: tl.constexpr, COSINE: tl.constexpr):
    """Gradient of `row` from one pair; zero at distance zero and, with COSINE, for zero rows."""
    if COSINE:
        unit = row * _inverse(norm)
        slope = (unit - other * _inverse(other_norm) - distance * unit) * _inverse(norm)
        return tl.where(_inverse(other_norm) == 0, 0.0, grad * slope)
    elif ROOT:  # noqa: RET505 (a branch at compile time)
        return grad * _inverse(distance) * (row - other)
    else:
        return 2.0 * grad * (row - other)


@triton.jit
def pair_gradients(
    grad,
    distance,
    index,
    rows,
    norms,
    others,
    other_norms,
    order,
    starts,
    result,
    n,
    kinds,
    limit,
    size,
    stride,
    other_stride,
    CHOOSES: tl.constexpr,
    ROOT: tl.constexpr,
    COSINE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (row, tile of the row): the gradient of the row from the pairs in which it is the anchor (if
    CHOOSES; `limit` is the number of candidates) and, unless `order` is None, from the pairs in which it is
    the candidate: order[starts[row]:starts[row + 1]].
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = place < size
    value = tl.load(rows + row * stride + place, mask=inside, other=0.0).to(tl.float32)
    norm = 1.0
    other_norm = 1.0
    if COSINE:
        norm = tl.load(norms + row)
    total = tl.zeros([BLOCK_D], tl.float32)
    if CHOOSES:
        pair = row
        for _ in range(kinds):
            chosen = tl.load(index + pair)
            exists = (chosen >= 0) & (chosen < limit)
            chosen = tl.where(exists, chosen, 0)
            if COSINE:
                other_norm = tl.load(other_norms + chosen)
            other = tl.load(others + chosen * other_stride + place, mask=inside, other=0.0).to(tl.float32)
            slope = tl.where(exists, tl.load(grad + pair), 0.0)
            share = _pull(value, other, norm, other_norm, tl.load(distance + pair), slope, ROOT, COSINE)
            total += tl.where(exists, share, 0.0)
            pair += n
    if order is not None:
        for at in range(tl.load(starts + row), tl.load(starts + row + 1)):
            pair = tl.load(order + at)
            chooser = pair % n
            if COSINE:
                other_norm = tl.load(other_norms + chooser)
            other = tl.load(others + chooser * other_stride + place, mask=inside, other=0.0).to(tl.float32)
            slope = tl.load(grad + pair)
            total += _pull(value, other, norm, other_norm, tl.load(distance + pair), slope, ROOT, COSINE)
    tl.store(result + row * size + place, total, mask=inside)


@triton.jit
def identity_extremes(
    x,
    norms,
    order,
    begins,
    ends,
    index,
    n,
    size,
    stride,
    ROOT: tl.constexpr,
    COSINE: tl.constexpr,
    SELF: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (anchor): the farthest and the nearest of the rows order[begins[anchor]:ends[anchor]], which
    are those of its identity in ascending order. Distances are computed from differences.
    """
    anchor = tl.program_id(0).to(tl.int64)
    end = tl.load(ends + anchor)
    scale = 1.0
    if COSINE:
        scale = _inverse(tl.load(norms + anchor))
    farthest = tl.full([], float("-inf"), tl.float32)
    nearest = tl.full([], float("inf"), tl.float32)
    negative = tl.full([], -1, tl.int64)
    positive = tl.full([], -1, tl.int64)
    for first in range(tl.load(begins + anchor), end, BLOCK_N):
        at = first + tl.arange(0, BLOCK_N)
        candidate = tl.load(order + at, mask=at < end, other=0)
        exists = at < end
        if not SELF:
            exists = exists & (candidate != anchor)
        other_scale = tl.full([BLOCK_N], 1.0, tl.float32)
        if COSINE:
            other_scale = _inverse(tl.load(norms + candidate, mask=exists, other=0.0))
        total = tl.zeros([BLOCK_N], tl.float32)
        for start in range(0, size, BLOCK_D):
            place = start + tl.arange(0, BLOCK_D)
            inside = place < size
            own = tl.load(x + anchor * stride + place, mask=inside, other=0.0).to(tl.float32) * scale
            other = tl.load(
                x + candidate[:, None] * stride + place[None, :],
                mask=exists[:, None] & inside[None, :],
                other=0.0,
            ).to(tl.float32)
            gap = own[None, :] - other * other_scale[:, None]
            total += tl.sum(gap * gap, 1)
        if COSINE:  # squared distance of unit vectors; zero rows count as orthogonal, which is 2
            total = tl.where(scale == 0, 2.0, tl.where(other_scale == 0, 2.0, total))
        if ROOT:
            total = tl.sqrt_rn(total)
        number = total == total  # NaN must surface: treat it as the farthest and as the nearest
        far = tl.where(number, total, float("inf"))
        near = tl.where(number, total, -1.0)
        best, place = tl.max(tl.where(exists, far, float("-inf")), 0, return_indices=True)
        negative = tl.where(best > farthest, tl.load(order + first + place), negative)
        farthest = tl.maximum(best, farthest)
        best, place = tl.min(tl.where(exists, near, float("inf")), 0, return_indices=True)
        positive = tl.where(best < nearest, tl.load(order + first + place), positive)
        nearest = tl.minimum(best, nearest)
    tl.store(index + anchor, negative)
    tl.store(index + n + anchor, positive)


@triton.jit
def triplet(distance, index, loss, slope, n, margin, SOFT: tl.constexpr, BLOCK_N: tl.constexpr):
    """One program: the mean of [margin + gap]_+ or ln(1 + e^gap) over the anchors with both pairs, and its
    derivatives with respect to both distances.
    """
    total = tl.zeros([BLOCK_N], tl.float32)
    count = tl.zeros([BLOCK_N], tl.int32)
    for start in range(0, n, BLOCK_N):
        anchor = start + tl.arange(0, BLOCK_N)
        gap, valid = _gap(distance, index, anchor, n)
        if SOFT:
            tail = tl.exp(-tl.abs(gap))
            above = 1.0 + tail
            # log1p(t), corrected for the rounding error of 1 + t
            log = tl.where(
                above == 1.0, tail, tl.log(above) * tail / tl.where(above == 1.0, 1.0, above - 1.0)
            )
            value = tl.where(gap < 0, 0.0, gap) + log
        else:
            value = tl.where(margin + gap < 0, 0.0, margin + gap)
        total += tl.where(valid, value, 0.0)
        count += valid.to(tl.int32)
    number = tl.maximum(tl.sum(count, 0), 1).to(tl.float32)
    tl.store(loss, tl.sum(total, 0) / number)
    for start in range(0, n, BLOCK_N):
        anchor = start + tl.arange(0, BLOCK_N)
        gap, valid = _gap(distance, index, anchor, n)
        steep = tl.sigmoid(gap) if SOFT else tl.where(margin + gap > 0, 1.0, 0.0)
        steep = tl.where(valid, steep, 0.0) / number
        tl.store(slope + anchor, steep, mask=anchor < n)
        tl.store(slope + n + anchor, -steep, mask=anchor < n)


@triton.jit
def _gap(distance, index, anchor, n):
    """Positive minus negative distance, and whether the anchor has both."""
    inside = anchor < n
    positive = tl.load(index + anchor, mask=inside, other=-1)
    negative = tl.load(index + n + anchor, mask=inside, other=-1)
    valid = (positive >= 0) & (negative >= 0)
    gap = tl.load(distance + anchor, mask=valid, other=0.0) - tl.load(
        distance + n + anchor, mask=valid, other=0.0
    )
    return gap, valid
