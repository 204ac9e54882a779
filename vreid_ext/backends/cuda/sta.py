"""STA kernels: allocates results and scratch and passes addresses, strides and torch's current stream."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends.addresses import (
    FeatureMap,
    address,
    dense,
    feature_map,
    in_strides_of,
    readable,
    with_gradient,
)
from vreid_ext.backends.cuda.launch import queue


def sta_pool(x: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, ...]:
    x, x_map = readable(x)
    b, t, c, h, w = x.shape
    squares_pieces, sums_pieces = _cuda.pieces(x_map, blocks)
    pooled = x.new_empty((b, 2 * c))
    scores = x.new_empty((b, t, blocks), dtype=torch.float32)
    attention = scores.new_empty((b, t, h, w))
    sums = scores.new_empty((b, t, blocks, c))
    energy = scores.new_empty((b, t))
    total = scores.new_empty((b, blocks))
    choice = x.new_empty((b, blocks), dtype=torch.int64)
    squares = scores.new_empty((b, t, squares_pieces, h * w))
    parts = sums if sums_pieces == 1 else scores.new_empty((b, t, blocks, sums_pieces, c))
    outputs = (pooled, scores, attention, sums, energy, total, choice)
    valid = dense(valid)
    _cuda.sta_pool(x_map, address(valid), blocks, *map(address, (squares, parts, *outputs)), *queue(x))
    return outputs


def sta_pool_backward(
    grad_pooled: Tensor | None,
    grad_scores: Tensor | None,
    grad_attention: Tensor | None,
    x: Tensor,
    valid: Tensor | None,
    scores: Tensor,
    attention: Tensor,
    sums: Tensor,
    energy: Tensor,
    total: Tensor,
    choice: Tensor,
) -> Tensor:
    dx = torch.empty_like(x)
    x_map, result_map, (x, result) = with_gradient(x, dx)
    inputs = [dense(each) for each in (grad_pooled, grad_scores, grad_attention)]
    saved = [dense(each) for each in (scores, attention, sums, energy, total, choice)]
    valid = dense(valid)
    scratch = scores.new_empty((2, *scores.shape)), attention.new_empty(attention.shape)
    _cuda.sta_pool_backward(
        x_map,
        result_map,
        address(valid),
        scores.shape[2],
        *map(address, (*inputs, *saved, *scratch)),
        *queue(x),
    )
    return dx if dx is result else dx.copy_(result)


def attention_map(x: Tensor, energy: str, normalize: str) -> tuple[Tensor, Tensor]:
    x, x_map = readable(x)
    b, t, _, h, w = x.shape
    attention = x.new_empty((b, t, h, w), dtype=torch.float32)
    norm = attention.new_empty((b, t))
    squares = attention.new_empty((b, t, _cuda.pieces(x_map, 1)[0], h * w))
    _cuda.attention_map(
        x_map, energy == "l2", normalize == "l2", *map(address, (squares, attention, norm)), *queue(x)
    )
    return attention, norm


def attention_map_backward(
    grad: Tensor, x: Tensor, attention: Tensor, norm: Tensor, energy: str, normalize: str
) -> Tensor:
    dx = torch.empty_like(x)
    x_map, result_map, (x, result) = with_gradient(x, dx)
    inputs = [dense(each) for each in (grad, attention, norm)]
    weight = attention.new_empty(attention.shape)
    _cuda.attention_map_backward(
        x_map, result_map, energy == "l2", normalize == "l2", *map(address, (*inputs, weight)), *queue(x)
    )
    return dx if dx is result else dx.copy_(result)


def block_scores(attention: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, Tensor]:
    b, t, h, w = attention.shape
    inputs = [dense(each) for each in (attention, valid)]
    scores = attention.new_empty((b, t, blocks))
    total = attention.new_empty((b, blocks))
    _cuda.block_scores(b, t, h * w, blocks, *map(address, (*inputs, scores, total)), *queue(attention))
    return scores, total


def block_scores_backward(
    grad: Tensor, attention: Tensor, valid: Tensor | None, scores: Tensor, total: Tensor
) -> Tensor:
    b, t, h, w = attention.shape
    inputs = [dense(each) for each in (grad, attention, valid, scores, total)]
    result = attention.new_empty(attention.shape)
    _cuda.block_scores_backward(
        b, t, h * w, scores.shape[2], *map(address, (*inputs, result)), *queue(attention)
    )
    return in_strides_of(attention, result)


def fuse(x: Tensor, scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    x, x_map = readable(x)
    b, _, c, h, w = x.shape
    blocks = scores.shape[2]
    inputs = [dense(each) for each in (scores, valid)]
    fused, fused_map = _fused(x.new_empty((b, 1, 2 * c, h, w)), x_map)
    choice = x.new_empty((b, blocks), dtype=torch.int64)
    _cuda.fuse(x_map, fused_map, blocks, *map(address, (*inputs, choice)), *queue(x))
    return fused[:, 0].contiguous(), choice


def fuse_backward(
    grad: Tensor, x: Tensor, scores: Tensor, choice: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    dx = torch.empty_like(x)
    x_map, result_map, (x, result) = with_gradient(x, dx)
    grad, grad_map = _fused(grad[:, None], x_map)
    inputs = [dense(each) for each in (scores, choice, valid)]
    dscores = scores.new_empty(scores.shape)
    parts = scores.new_empty((*scores.shape, _cuda.fuse_pieces(x_map, scores.shape[2])))
    _cuda.fuse_backward(
        x_map, result_map, grad_map, scores.shape[2], *map(address, (*inputs, dscores, parts)), *queue(x)
    )
    return dx if dx is result else dx.copy_(result), in_strides_of(scores, dscores)


def _fused(maps: Tensor, x_map: FeatureMap) -> tuple[Tensor, FeatureMap]:
    """Maps (B,1,2C,H,W) in the memory layout of x, copied if necessary, and their view.

    The kernels support only one layout at a time. The results of the op are contiguous; for channels_last
    input, torch transposes them at memory bandwidth.
    """
    own = feature_map(maps)
    if own is None or (own.stride_l == 1) != (x_map.stride_l == 1):
        maps = maps.contiguous()
        if x_map.stride_l != 1:
            maps = maps.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        own = feature_map(maps)
        assert own is not None
    return maps, own
