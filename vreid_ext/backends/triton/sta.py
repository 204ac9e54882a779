"""Launches of the STA kernels: allocation, grids and choice of tiles. For the ops see `vreid_ext.ops.sta`."""

from math import ceil

import torch
from torch import Tensor

from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import in_strides_of
from vreid_ext.backends.triton import sta_kernels as kernels
from vreid_ext.backends.triton.configs import (
    BLOCK_C,
    BLOCK_K,
    BLOCK_L,
    BLOCK_M,
    BLOCK_N,
    BLOCK_T,
    SCORE_C,
    Tile,
    fuse_gradient_tile,
    small_tile,
    streaming_tile,
)
from vreid_ext.backends.triton.launch import launch, on_device
from vreid_ext.backends.triton.maps import flat, mask, walk


def attention_map(args: signatures.AttentionMap) -> tuple[Tensor, Tensor]:
    attention, norm = args.results()
    with on_device(args.x):
        parts, _ = _channel_sums(args.x, None, None)
        _normalize(parts, None, attention, norm, None, 1, args.energy, args.normalize)
    return attention, norm


def attention_map_backward(args: signatures.AttentionMapBackward) -> Tensor:
    with on_device(args.x):
        weight = _energy_gradient(
            args.grad, None, None, args.attention, args.norm, 1, args.energy, args.normalize
        )
        return _map_gradient(args.x, None, weight)


def block_scores(args: signatures.BlockScores) -> tuple[Tensor, Tensor]:
    clips, frames, height, width = args.attention.shape
    scores, total = args.results()
    mass = torch.empty_like(scores)
    cells = height * width // args.blocks
    tile = small_tile(cells)
    with on_device(args.attention):
        launch(
            kernels.block_mass,
            (clips * frames,),
            args.attention.contiguous(),
            mask(args.valid),
            mass,
            args.blocks,
            cells,
            BLOCK_K=tile.BLOCK_K,
            BLOCK_I=tile.BLOCK_I,
        )
        _clip_scores(mass, args.valid, None, scores, total, None, None, height * width)
    return scores, total


def block_scores_backward(args: signatures.BlockScoresBackward) -> Tensor:
    clips, frames, blocks = args.scores.shape
    cells = args.attention[0, 0].numel() // blocks
    dattention = args.attention.new_empty(args.attention.shape)
    tile = small_tile(cells)
    with on_device(args.attention):
        slope, mean_slope = _score_gradient(args.grad, None, None, args.valid, args.scores)
        launch(
            kernels.mass_gradient, (clips * frames,),
            slope, mean_slope, args.total, mask(args.valid), args.attention.contiguous(), dattention, frames,
            blocks, cells,
            BLOCK_K=tile.BLOCK_K, BLOCK_I=tile.BLOCK_I,
        )  # fmt: skip
    return in_strides_of(args.attention, dattention)


def fuse(args: signatures.Fuse) -> tuple[Tensor, Tensor]:
    x = args.x
    clips, frames, channels, height, width = x.shape
    blocks = args.scores.shape[2]
    cells = height * width // blocks
    fused, choice = args.results()
    tile = streaming_tile(x, cells)
    with on_device(x):
        launch(
            kernels.fuse, (clips, ceil(channels / tile.BLOCK_C), _tiles(tile, blocks, cells)),
            x, args.scores.contiguous(), mask(args.valid), fused, choice, frames, channels, blocks, cells,
            *walk(x), FLAT=flat(x), BLOCK_C=tile.BLOCK_C, BLOCK_K=tile.BLOCK_K, BLOCK_I=tile.BLOCK_I,
            num_warps=tile.num_warps,
        )  # fmt: skip
    return fused, choice


def fuse_backward(args: signatures.FuseBackward) -> tuple[Tensor, Tensor]:
    x, grad = args.x, args.grad[:, None]
    clips, frames, channels, height, width = x.shape
    blocks = args.scores.shape[2]
    cells = height * width // blocks
    tile = fuse_gradient_tile(x, cells)
    grid = (clips * frames, ceil(channels / tile.CHUNK), _tiles(tile, blocks, cells))
    parts = x.new_empty((clips, frames, blocks, ceil(cells / tile.BLOCK_I), grid[1]), dtype=torch.float32)
    dx = torch.empty_like(x)
    with on_device(x):
        launch(
            kernels.fuse_gradient, grid,
            grad, x, args.scores.contiguous(), args.choice, mask(args.valid), dx, parts, frames, channels,
            blocks, cells, *walk(grad)[1:2], *walk(grad)[3:], *walk(x), *walk(dx)[1:],
            FLAT=flat(grad, x, dx), **tile._asdict(),
        )  # fmt: skip
        return dx, in_strides_of(args.scores, parts.sum((3, 4)))


def sta_pool(args: signatures.StaPool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    height, width = args.x.shape[3:]
    with on_device(args.x):
        parts, sums = _channel_sums(args.x, args.valid, args.blocks)
        pooled, scores, attention, _, energy, total, choice = args.results(lambda *_, **__: sums)
        mass = torch.empty_like(scores)
        _normalize(parts, args.valid, attention, energy, mass, args.blocks, "sum_square", "sum")
        _clip_scores(mass, args.valid, sums, scores, total, choice, pooled, height * width)
    return pooled, scores, attention, sums, energy, total, choice


def sta_pool_backward(args: signatures.StaPoolBackward) -> Tensor:
    grad_pooled = None if args.grad_pooled is None else args.grad_pooled.contiguous()
    with on_device(args.x):
        slope = None
        if grad_pooled is not None or args.grad_scores is not None:
            size = args.x.shape[3] * args.x.shape[4]
            given = args.grad_scores, grad_pooled, args.sums, args.valid, args.scores
            slope = (*_score_gradient(*given, size), args.total)
        weight = _energy_gradient(
            args.grad_attention,
            slope,
            args.valid,
            args.attention,
            args.energy,
            args.scores.shape[2],
            "sum_square",
            "sum",
        )
        return _map_gradient(args.x, args.valid, weight, grad_pooled, args.scores, args.choice)


def inter_frame_distance(args: signatures.InterFrameDistance) -> Tensor:
    with on_device(args.attention):
        return _pair_distances(args.attention.contiguous(), args.pairs.contiguous()).mean(1)


def inter_frame_distance_backward(args: signatures.InterFrameDistanceBackward) -> Tensor:
    clips, frames, height, width = args.attention.shape
    cells = height * width
    maps, pairs = args.attention.contiguous(), args.pairs.contiguous()
    dattention = torch.empty_like(maps)
    with on_device(args.attention):
        launch(
            kernels.pair_gradient, (clips * frames, ceil(cells / BLOCK_L)),
            args.grad.contiguous(),
            maps,
            pairs,
            _pair_distances(maps, pairs),
            dattention,
            frames,
            pairs.shape[1],
            cells,
            BLOCK_M=BLOCK_M, BLOCK_L=BLOCK_L,
        )  # fmt: skip
    return in_strides_of(args.attention, dattention)


def _channel_sums(x: Tensor, valid: Tensor | None, blocks: int | None) -> tuple[Tensor, Tensor]:
    """Sums of squares (B,T,chunks,L) and, if `blocks` is given, block sums (B,T,K,C)."""
    clips, frames, channels, height, width = x.shape
    count = blocks or 1
    cells = height * width // count
    tile = streaming_tile(x, cells)
    grid = (clips * frames, ceil(channels / tile.CHUNK), _tiles(tile, count, cells))
    squares = x.new_empty((clips, frames, grid[1], height * width), dtype=torch.float32)
    splits = ceil(cells / tile.BLOCK_I)
    sums = (
        None
        if blocks is None
        else x.new_empty((clips, frames, blocks, splits, channels), dtype=torch.float32)
    )
    launch(
        kernels.channel_sums,
        grid,
        x,
        mask(valid),
        squares,
        sums,
        frames,
        channels,
        count,
        cells,
        *walk(x),
        FLAT=flat(x),
        **tile._asdict(),
    )
    if sums is None:
        return squares, squares
    return squares, sums.sum(3) if splits > 1 else sums.squeeze(3)


def _normalize(
    squares: Tensor,
    valid: Tensor | None,
    attention: Tensor,
    norm: Tensor,
    mass: Tensor | None,
    blocks: int,
    energy: str,
    normalize: str,
) -> None:
    chunks, size = squares.shape[2:]
    tile = small_tile(size // blocks)
    launch(
        kernels.normalize_energy, (norm.numel(),),
        squares, mask(valid), attention, norm, mass, chunks, blocks, size // blocks, ROOT=energy == "l2",
        L2=normalize == "l2", BLOCK_N=BLOCK_N, BLOCK_K=tile.BLOCK_K, BLOCK_I=tile.BLOCK_I,
    )  # fmt: skip


def _clip_scores(
    mass: Tensor,
    valid: Tensor | None,
    sums: Tensor | None,
    scores: Tensor,
    total: Tensor,
    choice: Tensor | None,
    pooled: Tensor | None,
    size: int,
) -> None:
    clips, frames, blocks = mass.shape
    channels = 1 if sums is None else sums.shape[3]
    launch(
        kernels.clip_scores, (clips, ceil(channels / BLOCK_C)),
        mass, mask(valid), sums, scores, total, choice, pooled, frames, channels, blocks, size,
        BLOCK_T=BLOCK_T, BLOCK_K=BLOCK_K, BLOCK_C=BLOCK_C, num_warps=1,
    )  # fmt: skip


def _score_gradient(
    grad_scores: Tensor | None,
    grad_pooled: Tensor | None,
    sums: Tensor | None,
    valid: Tensor | None,
    scores: Tensor,
    size: int = 1,
) -> tuple[Tensor, Tensor]:
    """Gradient of the scores, dS (B,T,K), and its mean over the frames weighted by S (B,K)."""
    clips, frames, blocks = scores.shape
    scores = scores.contiguous()
    slope, mean_slope = torch.empty_like(scores), scores.new_empty((clips, blocks))
    channels = 1 if sums is None else sums.shape[3]
    grad_scores = None if grad_scores is None else grad_scores.contiguous()
    launch(
        kernels.score_gradient, (clips, blocks),
        grad_scores, grad_pooled, sums, mask(valid), scores, slope, mean_slope, frames, channels, size,
        BLOCK_T=BLOCK_T, BLOCK_C=SCORE_C,
    )  # fmt: skip
    return slope, mean_slope


def _energy_gradient(
    grad_attention: Tensor | None,
    slope: tuple[Tensor, Tensor, Tensor] | None,
    valid: Tensor | None,
    attention: Tensor,
    norm: Tensor,
    blocks: int,
    energy: str,
    normalize: str,
) -> Tensor:
    """Factor of x in its gradient (B,T,H,W)."""
    clips, frames, height, width = attention.shape
    weight = attention.new_empty(attention.shape)
    tile = small_tile(height * width // blocks)
    launch(
        kernels.energy_gradient, (clips * frames,),
        None if grad_attention is None else grad_attention.contiguous(), *(slope or (None, None, None)),
        mask(valid), attention, norm, weight, frames, blocks, height * width // blocks,
        ROOT=energy == "l2", L2=normalize == "l2", BLOCK_K=tile.BLOCK_K, BLOCK_I=tile.BLOCK_I,
    )  # fmt: skip
    return weight


def _map_gradient(
    x: Tensor,
    valid: Tensor | None,
    weight: Tensor,
    grad_pooled: Tensor | None = None,
    scores: Tensor | None = None,
    choice: Tensor | None = None,
) -> Tensor:
    clips, frames, channels, height, width = x.shape
    blocks = 1 if grad_pooled is None or scores is None else scores.shape[2]
    cells = height * width // blocks
    tile = streaming_tile(x, cells)
    dx = torch.empty_like(x)
    if grad_pooled is None:
        scores = choice = None
    launch(
        kernels.map_gradient, (clips * frames, ceil(channels / tile.CHUNK), _tiles(tile, blocks, cells)),
        x, dx, mask(valid), weight, grad_pooled, scores, choice, frames, channels, blocks, cells,
        *walk(x), *walk(dx)[1:], FLAT=flat(x, dx), **tile._asdict(),
    )  # fmt: skip
    return dx


def _pair_distances(attention: Tensor, pairs: Tensor) -> Tensor:
    clips, count = pairs.shape[:2]
    distances = attention.new_empty((clips, count))
    size = attention.shape[2] * attention.shape[3]
    launch(
        kernels.pair_distance,
        (clips * count,),
        attention,
        pairs,
        distances,
        attention.shape[1],
        count,
        size,
        BLOCK_L=BLOCK_L,
    )
    return distances


def _tiles(tile: Tile, blocks: int, cells: int) -> int:
    return ceil(blocks / tile.BLOCK_K) * ceil(cells / tile.BLOCK_I)
