"""Launches of the part metric's kernels. For the ops see `vreid_ext.ops.part_metric`."""

from math import ceil

import torch
from torch import Tensor

from vreid_ext.backends import signatures
from vreid_ext.backends.triton import part_metric_kernels as kernels
from vreid_ext.backends.triton.configs import PART_GRADIENTS, PRODUCT_GROUP, chosen
from vreid_ext.backends.triton.launch import launch, on_device

# Backward processes several parts at a time if their slopes have at most this many elements, otherwise one
# part at a time. The slopes then take about as much memory as the result.
_SLOPES = 2**22


def part_distance(args: signatures.PartDistance) -> tuple[Tensor, Tensor]:
    queries, items = len(args.q_features), len(args.g_features)
    tile = chosen("part_metric", queries * items, args.q_features.device)
    q_features, g_features = _padded(args.q_features, tile.BLOCK_K), _padded(args.g_features, tile.BLOCK_K)
    distance, unused = args.results()
    with on_device(distance):
        launch(
            kernels.part_distance, (ceil(queries / tile.BLOCK_N) * ceil(items / tile.BLOCK_M),),
            *_side(q_features, args.q_weights), *_side(g_features, args.g_weights), distance,
            *_sizes(q_features, g_features), GROUP=PRODUCT_GROUP, **tile._asdict(),
        )  # fmt: skip
    return distance, unused


def part_distance_backward(args: signatures.PartDistanceBackward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad, q_features, q_weights, g_features, g_weights, _ = args
    queries, items, parts = len(q_features), len(g_features), q_features.shape[1]
    dq, dg = q_features.new_empty(q_features.shape), g_features.new_empty(g_features.shape)
    dwq, dwg = q_weights.new_empty(q_weights.shape), g_weights.new_empty(g_weights.shape)
    tile = chosen("part_metric", queries * items, q_features.device)
    q_features, g_features = _padded(q_features, tile.BLOCK_K), _padded(g_features, tile.BLOCK_K)
    sides = *_side(q_features, q_weights), *_side(g_features, g_weights)
    grad = grad.contiguous()
    tiles = ceil(queries / tile.BLOCK_N), ceil(items / tile.BLOCK_M)
    at_once = min(parts, max(1, _SLOPES // (queries * items)))
    slope = grad.new_empty((at_once, queries, items))
    q_shares = grad.new_empty((at_once, tiles[1], queries))
    g_shares = grad.new_empty((at_once, tiles[0], items))
    with on_device(grad):
        for first in range(0, parts, at_once):
            count = min(at_once, parts - first)
            launch(
                kernels.part_slopes, (tiles[0] * tiles[1], count),
                grad, *sides, slope, q_shares, g_shares, first, *_sizes(q_features, g_features),
                GROUP=PRODUCT_GROUP, **tile._asdict(),
            )  # fmt: skip
            dwq[:, first : first + count] = q_shares[:count].sum(1).T
            dwg[:, first : first + count] = g_shares[:count].sum(1).T
            _gradients(dq, q_features, g_features, slope, (items, 1), first, count)
            _gradients(dg, g_features, q_features, slope, (1, items), first, count)
    return dq, dwq, dg, dwg


def _gradients(
    result: Tensor,
    features: Tensor,
    others: Tensor,
    slope: Tensor,
    slope_strides: tuple[int, int],
    first: int,
    count: int,
) -> None:
    rows, parts, size = result.shape
    tile = PART_GRADIENTS
    launch(
        kernels.part_gradients, (ceil(rows / tile.BLOCK_N), ceil(size / tile.BLOCK_M), count),
        slope, features, others, result, first, rows, len(others), parts, size, *features.stride()[:2],
        *others.stride()[:2], *slope_strides, **tile._asdict(),
    )  # fmt: skip


def _side(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n,R,D), their squared norms (n,R) and weights (n,R)."""
    squares = torch.linalg.vector_norm(features, dim=2, dtype=torch.float32).square()
    return features, squares.contiguous(), weights.contiguous()


def _sizes(q_features: Tensor, g_features: Tensor) -> tuple[int, ...]:
    """Numbers of queries, items, parts and features per part, and strides."""
    return len(q_features), *g_features.shape, *q_features.stride()[:2], *g_features.stride()[:2]


def _padded(features: Tensor, multiple: int) -> Tensor:
    """Features, zero-padded to a multiple of `multiple` if necessary, with strides for 16-byte loads."""
    size = features.shape[2]
    if features.stride(2) == 1 and size % multiple == 0 and not any(s % 16 for s in features.stride()[:2]):
        return features
    padded = features.new_zeros((*features.shape[:2], ceil(size / multiple) * multiple))
    padded[..., :size] = features
    return padded
