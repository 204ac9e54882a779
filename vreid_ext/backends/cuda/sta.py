"""STA kernels: allocates results and scratch, hands over addresses, strides and torch's current stream."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends.addresses import address, dense, readable, with_gradient
from vreid_ext.backends.cuda.launch import queue


def sta_pool(x: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, ...]:
    x, x_map = readable(x)
    b, t, c, h, w = x.shape
    squares_pieces, sums_pieces = _cuda.partials(x_map, blocks)
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
