"""DRSTA kernels: allocates the results and passes addresses, strides and torch's number of threads."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends.addresses import DTYPE_CODES, address, dense, readable, with_gradient
from vreid_ext.backends.native import memory
from vreid_ext.backends.reference.region import frame_weights


def region_pool(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, x_map = readable(x)
    b, t, c = x.shape[:3]
    regions = logits.shape[2]
    logits = logits.contiguous()
    weights = logits.new_empty(logits.shape)
    features = memory.empty((b, t, regions, c), x.dtype)
    overlap = logits.new_empty((b, t))
    outputs = (weights, features, overlap)
    _native.region_pool(x_map, regions, *map(address, (logits, *outputs)), torch.get_num_threads())
    return features, weights, overlap


def region_pool_backward(
    grad_features: Tensor | None,
    grad_weights: Tensor | None,
    grad_overlap: Tensor | None,
    weights: Tensor,
    x: Tensor,
) -> tuple[Tensor, Tensor]:
    dx = memory.empty_like(x)
    x_map, result_map, (x, result) = with_gradient(x, dx)
    inputs = [dense(each) for each in (grad_features, grad_weights, grad_overlap, weights)]
    dlogits = weights.new_empty(weights.shape)
    _native.region_pool_backward(
        x_map,
        result_map,
        weights.shape[2],
        *map(address, (*inputs, dlogits)),
        torch.get_num_threads(),
    )
    return dlogits, dx if dx is result else dx.copy_(result)


def hellinger_overlap(weights: Tensor, form: str) -> Tensor:
    b, t, k, cells = weights.shape
    weights = weights.contiguous()
    overlap = weights.new_empty((b, t))
    _native.hellinger_overlap(
        DTYPE_CODES[weights.dtype],
        *(b * t, k, cells),
        form == "hellinger",
        *map(address, (weights, overlap)),
        torch.get_num_threads(),
    )
    return overlap


def hellinger_overlap_backward(grad: Tensor, weights: Tensor, form: str) -> Tensor:
    b, t, k, cells = weights.shape
    inputs = [dense(each) for each in (grad, weights)]
    dweights = weights.new_empty(weights.shape)
    _native.hellinger_overlap_backward(
        DTYPE_CODES[weights.dtype],
        *(b * t, k, cells),
        form == "hellinger",
        *map(address, (*inputs, dweights)),
        torch.get_num_threads(),
    )
    return dweights


def temporal_pool(scores: Tensor, features: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    b, t, k, d = features.shape
    weights = frame_weights(scores, valid).contiguous()
    inputs = [dense(each) for each in (features, valid)]
    pooled = features.new_empty((b, k, d))
    _native.temporal_pool(
        DTYPE_CODES[features.dtype],
        *(b, t, k, d),
        *map(address, (weights, *inputs, pooled)),
        torch.get_num_threads(),
    )
    return pooled, weights


def temporal_pool_backward(
    grad: Tensor, weights: Tensor, features: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    b, t, k, d = features.shape
    inputs = [dense(each) for each in (grad, weights, features, valid)]
    dscores = weights.new_empty(weights.shape)
    dfeatures = memory.empty(tuple(features.shape), features.dtype)
    _native.temporal_pool_backward(
        DTYPE_CODES[features.dtype],
        *(b, t, k, d),
        *map(address, (*inputs, dscores, dfeatures)),
        torch.get_num_threads(),
    )
    return dscores, dfeatures
