"""STA kernels: allocates results and scratch and passes addresses, strides and torch's current stream."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends import signatures
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


def sta_pool(args: signatures.StaPool, clusters: bool | None = None) -> tuple[Tensor, ...]:
    """`clusters`: one launch with a cluster for each clip, or one launch for each step, with the same bits.

    By default the one that is predicted to be faster (docs/gpu.md).
    """
    x, x_map = readable(args.x)
    b, t, c, h, w = x.shape
    squares_pieces, sums_pieces = _cuda.pieces(x_map, args.blocks)
    valid, results = dense(args.valid), args.results()
    sums = results[3]
    squares = sums.new_empty((b, t, squares_pieces, h * w))
    parts = sums if sums_pieces == 1 else sums.new_empty((b, t, args.blocks, sums_pieces, c))
    addresses = map(address, (squares, parts, *results))
    _cuda.sta_pool(x_map, address(valid), args.blocks, *addresses, clusters, *queue(x))
    return results


def sta_pool_backward(args: signatures.StaPoolBackward) -> Tensor:
    dx = torch.empty_like(args.x)
    x_map, result_map, (x, result) = with_gradient(args.x, dx)
    # The fields in the order of the binding, without x and valid: three gradients, then the saved results.
    inputs = [dense(each) for each in (*args[:3], *args[5:])]
    valid = dense(args.valid)
    scratch = args.scores.new_empty((2, *args.scores.shape)), args.attention.new_empty(args.attention.shape)
    _cuda.sta_pool_backward(
        x_map,
        result_map,
        address(valid),
        args.scores.shape[2],
        *map(address, (*inputs, *scratch)),
        *queue(x),
    )
    return dx if dx is result else dx.copy_(result)


def attention_map(args: signatures.AttentionMap) -> tuple[Tensor, Tensor]:
    x, x_map = readable(args.x)
    b, t, _, h, w = x.shape
    results = args.results()
    squares = results[0].new_empty((b, t, _cuda.pieces(x_map, 1)[0], h * w))
    _cuda.attention_map(
        x_map, args.energy == "l2", args.normalize == "l2", *map(address, (squares, *results)), *queue(x)
    )
    return results


def attention_map_backward(args: signatures.AttentionMapBackward) -> Tensor:
    dx = torch.empty_like(args.x)
    x_map, result_map, (x, result) = with_gradient(args.x, dx)
    inputs = [dense(each) for each in (args.grad, args.attention, args.norm)]
    weight = args.attention.new_empty(args.attention.shape)
    _cuda.attention_map_backward(
        x_map, result_map, args.energy == "l2", args.normalize == "l2", *map(address, (*inputs, weight)),
        *queue(x),
    )  # fmt: skip
    return dx if dx is result else dx.copy_(result)


def block_scores(args: signatures.BlockScores) -> tuple[Tensor, Tensor]:
    b, t, h, w = args.attention.shape
    inputs, results = [dense(each) for each in (args.attention, args.valid)], args.results()
    _cuda.block_scores(b, t, h * w, args.blocks, *map(address, (*inputs, *results)), *queue(args.attention))
    return results


def block_scores_backward(args: signatures.BlockScoresBackward) -> Tensor:
    b, t, h, w = args.attention.shape
    inputs = [dense(each) for each in args]
    result = args.attention.new_empty(args.attention.shape)
    _cuda.block_scores_backward(
        b, t, h * w, args.scores.shape[2], *map(address, (*inputs, result)), *queue(args.attention)
    )
    return in_strides_of(args.attention, result)


def fuse(args: signatures.Fuse) -> tuple[Tensor, Tensor]:
    x, x_map = readable(args.x)
    inputs, (fused, choice) = [dense(each) for each in (args.scores, args.valid)], args.results()
    fused, fused_map = _fused(fused[:, None], x_map)
    _cuda.fuse(x_map, fused_map, args.scores.shape[2], *map(address, (*inputs, choice)), *queue(x))
    return fused[:, 0].contiguous(), choice


def fuse_backward(args: signatures.FuseBackward) -> tuple[Tensor, Tensor]:
    dx = torch.empty_like(args.x)
    x_map, result_map, (x, result) = with_gradient(args.x, dx)
    _held, grad_map = _fused(args.grad[:, None], x_map)
    inputs = [dense(each) for each in (args.scores, args.choice, args.valid)]
    dscores = args.scores.new_empty(args.scores.shape)
    parts = args.scores.new_empty((*args.scores.shape, _cuda.fuse_pieces(x_map, args.scores.shape[2])))
    _cuda.fuse_backward(
        x_map, result_map, grad_map, args.scores.shape[2], *map(address, (*inputs, dscores, parts)), *queue(x)
    )
    return dx if dx is result else dx.copy_(result), in_strides_of(args.scores, dscores)


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
