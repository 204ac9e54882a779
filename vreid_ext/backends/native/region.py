"""DRSTA kernels: allocates the results and passes addresses, strides and torch's number of threads."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import DTYPE_CODES, address, dense, readable, with_gradient
from vreid_ext.backends.native import memory
from vreid_ext.backends.reference.region import frame_weights


def region_pool(args: signatures.RegionPool) -> tuple[Tensor, Tensor, Tensor]:
    _held, x_map = readable(args.x)
    logits = args.logits.contiguous()
    features, weights, overlap = args.results(memory.empty)
    outputs = (weights, features, overlap)
    _native.region_pool(x_map, logits.shape[2], *map(address, (logits, *outputs)), torch.get_num_threads())
    return features, weights, overlap


def region_pool_backward(args: signatures.RegionPoolBackward) -> tuple[Tensor, Tensor]:
    dx = memory.empty_like(args.x)
    x_map, result_map, (_held, result) = with_gradient(args.x, dx)
    inputs = [dense(each) for each in args[:4]]  # the gradients and the weights
    dlogits = args.weights.new_empty(args.weights.shape)
    _native.region_pool_backward(
        x_map,
        result_map,
        args.weights.shape[2],
        *map(address, (*inputs, dlogits)),
        torch.get_num_threads(),
    )
    return dlogits, dx if dx is result else dx.copy_(result)


def hellinger_overlap(args: signatures.HellingerOverlap) -> Tensor:
    b, t, k, cells = args.weights.shape
    weights, overlap = args.weights.contiguous(), args.results()
    _native.hellinger_overlap(
        DTYPE_CODES[weights.dtype],
        *(b * t, k, cells),
        args.form == "hellinger",
        *map(address, (weights, overlap)),
        torch.get_num_threads(),
    )
    return overlap


def hellinger_overlap_backward(args: signatures.HellingerOverlapBackward) -> Tensor:
    b, t, k, cells = args.weights.shape
    inputs, dweights = [dense(each) for each in (args.grad, args.weights)], args.results()
    _native.hellinger_overlap_backward(
        DTYPE_CODES[args.weights.dtype],
        *(b * t, k, cells),
        args.form == "hellinger",
        *map(address, (*inputs, dweights)),
        torch.get_num_threads(),
    )
    return dweights


def temporal_pool(args: signatures.TemporalPool) -> tuple[Tensor, Tensor]:
    b, t, k, d = args.features.shape
    weights = frame_weights(args.scores, args.valid).contiguous()
    inputs = [dense(each) for each in (args.features, args.valid)]
    pooled = args.features.new_empty((b, k, d))
    _native.temporal_pool(
        DTYPE_CODES[args.features.dtype],
        *(b, t, k, d),
        *map(address, (weights, *inputs, pooled)),
        torch.get_num_threads(),
    )
    return pooled, weights


def temporal_pool_backward(args: signatures.TemporalPoolBackward) -> tuple[Tensor, Tensor]:
    b, t, k, d = args.features.shape
    inputs = [dense(each) for each in args]
    dscores = args.weights.new_empty(args.weights.shape)
    dfeatures = memory.empty(tuple(args.features.shape), args.features.dtype)
    _native.temporal_pool_backward(
        DTYPE_CODES[args.features.dtype],
        *(b, t, k, d),
        *map(address, (*inputs, dscores, dfeatures)),
        torch.get_num_threads(),
    )
    return dscores, dfeatures
