"""DRSTA kernels: allocates results and scratch, passes addresses and strides; torch computes the softmax."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends.addresses import address, dense, readable, with_gradient
from vreid_ext.backends.cuda.launch import queue


def region_pool(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, x_map = readable(x)
    b, t, c = x.shape[:3]
    regions = logits.shape[2]
    weights = logits.contiguous().softmax(-1)
    features = x.new_empty((b, t, regions, c))
    overlap = weights.new_empty((b, t))
    pieces = _cuda.region_pieces(x_map)
    parts = None if pieces == 1 else weights.new_empty((b, t, pieces, regions, c))
    residual = weights.new_empty((b, t, regions, regions))
    _cuda.region_pool(x_map, regions, *map(address, (weights, features, overlap, parts, residual)), *queue(x))
    return features, weights, overlap


def region_pool_backward(
    grad_features: Tensor | None,
    grad_weights: Tensor | None,
    grad_overlap: Tensor | None,
    weights: Tensor,
    x: Tensor,
) -> tuple[Tensor, Tensor]:
    dx = torch.zeros_like(x) if grad_features is None else torch.empty_like(x)
    x_map, result_map, (x, result) = with_gradient(x, dx)
    b, t, regions, cells = weights.shape
    inputs = [dense(each) for each in (grad_features, grad_weights, grad_overlap, weights)]
    dlogits = weights.new_empty(weights.shape)
    parts = residual = None
    if grad_features is not None:
        pieces = _cuda.region_gradient_pieces(x_map, result_map)
        parts = weights.new_empty((b, t, pieces, regions, cells))
    if grad_overlap is not None:
        residual = weights.new_empty((b, t, regions, regions))
    _cuda.region_pool_backward(
        x_map, result_map, regions, *map(address, (*inputs, dlogits, parts, residual)), *queue(x)
    )
    written = dx is result or grad_features is None
    return dlogits, dx if written else dx.copy_(result)
