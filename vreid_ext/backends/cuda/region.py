"""DRSTA kernels: allocates results and scratch, passes addresses and strides; torch computes the softmax."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import address, dense, readable, with_gradient
from vreid_ext.backends.cuda.launch import queue


def region_pool(args: signatures.RegionPool) -> tuple[Tensor, Tensor, Tensor]:
    x, x_map = readable(args.x)
    b, t, c = x.shape[:3]
    regions = args.logits.shape[2]
    weights = args.logits.contiguous().softmax(-1)
    features = x.new_empty((b, t, regions, c))
    overlap = weights.new_empty((b, t))
    pieces = _cuda.region_pieces(x_map)
    parts = None if pieces == 1 else weights.new_empty((b, t, pieces, regions, c))
    residual = weights.new_empty((b, t, regions, regions))
    _cuda.region_pool(x_map, regions, *map(address, (weights, features, overlap, parts, residual)), *queue(x))
    return features, weights, overlap


def region_pool_backward(args: signatures.RegionPoolBackward) -> tuple[Tensor, Tensor]:
    dx = torch.zeros_like(args.x) if args.grad_features is None else torch.empty_like(args.x)
    x_map, result_map, (x, result) = with_gradient(args.x, dx)
    b, t, regions, cells = args.weights.shape
    inputs = [dense(each) for each in args[:4]]  # the gradients and the weights
    dlogits = args.weights.new_empty(args.weights.shape)
    parts = residual = None
    if args.grad_features is not None:
        pieces = _cuda.region_gradient_pieces(x_map, result_map)
        parts = args.weights.new_empty((b, t, pieces, regions, cells))
    if args.grad_overlap is not None:
        residual = args.weights.new_empty((b, t, regions, regions))
    _cuda.region_pool_backward(
        x_map, result_map, regions, *map(address, (*inputs, dlogits, parts, residual)), *queue(x)
    )
    written = dx is result or args.grad_features is None
    return dlogits, dx if written else dx.copy_(result)
