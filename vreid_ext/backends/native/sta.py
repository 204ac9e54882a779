"""STA kernels: allocates the results and passes addresses, strides and torch's number of threads."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends.addresses import DTYPE_CODES, address, dense, in_strides_of, readable, with_gradient
from vreid_ext.backends.native import memory
from vreid_ext.precision import accumulator


def sta_pool(x: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, ...]:
    x, x_map = readable(x)
    b, t, c, h, w = x.shape
    acc = accumulator(x.dtype)
    pooled = x.new_empty((b, 2 * c))
    scores = x.new_empty((b, t, blocks), dtype=acc)
    attention = x.new_empty((b, t, h, w), dtype=acc)
    sums = memory.empty((b, t, blocks, c), acc)
    energy = x.new_empty((b, t), dtype=acc)
    total = x.new_empty((b, blocks), dtype=acc)
    choice = x.new_empty((b, blocks), dtype=torch.int64)
    outputs = (pooled, scores, attention, sums, energy, total, choice)
    valid = dense(valid)
    _native.sta_pool(x_map, address(valid), blocks, *map(address, outputs), torch.get_num_threads())
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
    dx = memory.empty_like(x)
    x_map, result_map, (x, result) = with_gradient(x, dx)
    inputs = [dense(each) for each in (grad_pooled, grad_scores, grad_attention)]
    saved = [dense(each) for each in (scores, attention, sums, energy, total, choice)]
    valid = dense(valid)
    _native.sta_pool_backward(
        x_map,
        result_map,
        address(valid),
        scores.shape[2],
        *map(address, inputs),
        *map(address, saved),
        torch.get_num_threads(),
    )
    return dx if dx is result else dx.copy_(result)


def attention_map(x: Tensor, energy: str, normalize: str) -> tuple[Tensor, Tensor]:
    x, x_map = readable(x)
    b, t, _, h, w = x.shape
    attention = x.new_empty((b, t, h, w), dtype=accumulator(x.dtype))
    norm = attention.new_empty((b, t))
    _native.attention_map(
        x_map,
        energy == "l2",
        normalize == "l2",
        address(attention),
        address(norm),
        torch.get_num_threads(),
    )
    return attention, norm


def attention_map_backward(
    grad: Tensor, x: Tensor, attention: Tensor, norm: Tensor, energy: str, normalize: str
) -> Tensor:
    dx = memory.empty_like(x)
    x_map, result_map, (x, result) = with_gradient(x, dx)
    inputs = [dense(each) for each in (grad, attention, norm)]
    _native.attention_map_backward(
        x_map,
        result_map,
        energy == "l2",
        normalize == "l2",
        *map(address, inputs),
        torch.get_num_threads(),
    )
    return dx if dx is result else dx.copy_(result)


def block_scores(attention: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, Tensor]:
    b, t, h, w = attention.shape
    inputs = [dense(each) for each in (attention, valid)]
    scores = attention.new_empty((b, t, blocks))
    total = attention.new_empty((b, blocks))
    _native.block_scores(
        DTYPE_CODES[attention.dtype],
        *(b, t, h * w, blocks),
        *map(address, (*inputs, scores, total)),
        torch.get_num_threads(),
    )
    return scores, total


def block_scores_backward(
    grad: Tensor, attention: Tensor, valid: Tensor | None, scores: Tensor, total: Tensor
) -> Tensor:
    b, t, h, w = attention.shape
    inputs = [dense(each) for each in (grad, attention, valid, scores, total)]
    result = attention.new_empty(attention.shape)
    _native.block_scores_backward(
        DTYPE_CODES[attention.dtype],
        *(b, t, h * w, scores.shape[2]),
        *map(address, (*inputs, result)),
        torch.get_num_threads(),
    )
    return in_strides_of(attention, result)


def fuse(x: Tensor, scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    x, x_map = readable(x)
    b, _, c, h, w = x.shape
    blocks = scores.shape[2]
    inputs = [dense(each) for each in (scores, valid)]
    fused = x.new_empty((b, 2 * c, h, w))
    choice = x.new_empty((b, blocks), dtype=torch.int64)
    _native.fuse(x_map, blocks, *map(address, (*inputs, fused, choice)), torch.get_num_threads())
    return fused, choice


def fuse_backward(
    grad: Tensor, x: Tensor, scores: Tensor, choice: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    dx = memory.empty_like(x)
    x_map, result_map, (x, result) = with_gradient(x, dx)
    inputs = [dense(each) for each in (grad, scores, choice, valid)]
    dscores = scores.new_empty(scores.shape)
    _native.fuse_backward(
        x_map,
        result_map,
        scores.shape[2],
        *map(address, (*inputs, dscores)),
        torch.get_num_threads(),
    )
    return dx if dx is result else dx.copy_(result), in_strides_of(scores, dscores)


def inter_frame_distance(attention: Tensor, pairs: Tensor) -> Tensor:
    b, t, h, w = attention.shape
    inputs = [dense(each) for each in (attention, pairs)]
    distance = attention.new_empty(b)
    _native.inter_frame_distance(
        DTYPE_CODES[attention.dtype],
        *(b, t, h * w, pairs.shape[1]),
        *map(address, (*inputs, distance)),
        torch.get_num_threads(),
    )
    return distance


def inter_frame_distance_backward(grad: Tensor, attention: Tensor, pairs: Tensor) -> Tensor:
    b, t, h, w = attention.shape
    inputs = [dense(each) for each in (grad, attention, pairs)]
    result = attention.new_empty(attention.shape)
    _native.inter_frame_distance_backward(
        DTYPE_CODES[attention.dtype],
        *(b, t, h * w, pairs.shape[1]),
        *map(address, (*inputs, result)),
        torch.get_num_threads(),
    )
    return in_strides_of(attention, result)
