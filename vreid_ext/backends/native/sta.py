"""STA kernels: allocates the results and passes addresses, strides and torch's number of threads."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import DTYPE_CODES, address, dense, in_strides_of, readable, with_gradient
from vreid_ext.backends.native import memory


def sta_pool(args: signatures.StaPool) -> tuple[Tensor, ...]:
    _held, x_map = readable(args.x)
    valid, results = dense(args.valid), args.results(memory.empty)
    _native.sta_pool(x_map, address(valid), args.blocks, *map(address, results), torch.get_num_threads())
    return results


def sta_pool_backward(args: signatures.StaPoolBackward) -> Tensor:
    dx = memory.empty_like(args.x)
    x_map, result_map, (_held, result) = with_gradient(args.x, dx)
    # The fields in the order of the binding, without x and valid: three gradients, then the saved results.
    inputs = [dense(each) for each in (*args[:3], *args[5:])]
    valid = dense(args.valid)
    _native.sta_pool_backward(
        x_map,
        result_map,
        address(valid),
        args.scores.shape[2],
        *map(address, inputs),
        torch.get_num_threads(),
    )
    return dx if dx is result else dx.copy_(result)


def attention_map(args: signatures.AttentionMap) -> tuple[Tensor, Tensor]:
    _held, x_map = readable(args.x)
    results = args.results()
    _native.attention_map(
        x_map,
        args.energy == "l2",
        args.normalize == "l2",
        *map(address, results),
        torch.get_num_threads(),
    )
    return results


def attention_map_backward(args: signatures.AttentionMapBackward) -> Tensor:
    dx = memory.empty_like(args.x)
    x_map, result_map, (_held, result) = with_gradient(args.x, dx)
    inputs = [dense(each) for each in (args.grad, args.attention, args.norm)]
    _native.attention_map_backward(
        x_map,
        result_map,
        args.energy == "l2",
        args.normalize == "l2",
        *map(address, inputs),
        torch.get_num_threads(),
    )
    return dx if dx is result else dx.copy_(result)


def block_scores(args: signatures.BlockScores) -> tuple[Tensor, Tensor]:
    b, t, h, w = args.attention.shape
    inputs, results = [dense(each) for each in (args.attention, args.valid)], args.results()
    _native.block_scores(
        DTYPE_CODES[args.attention.dtype],
        *(b, t, h * w, args.blocks),
        *map(address, (*inputs, *results)),
        torch.get_num_threads(),
    )
    return results


def block_scores_backward(args: signatures.BlockScoresBackward) -> Tensor:
    b, t, h, w = args.attention.shape
    inputs = [dense(each) for each in args]
    result = args.attention.new_empty(args.attention.shape)
    _native.block_scores_backward(
        DTYPE_CODES[args.attention.dtype],
        *(b, t, h * w, args.scores.shape[2]),
        *map(address, (*inputs, result)),
        torch.get_num_threads(),
    )
    return in_strides_of(args.attention, result)


def fuse(args: signatures.Fuse) -> tuple[Tensor, Tensor]:
    _held, x_map = readable(args.x)
    inputs, results = [dense(each) for each in (args.scores, args.valid)], args.results()
    _native.fuse(x_map, args.scores.shape[2], *map(address, (*inputs, *results)), torch.get_num_threads())
    return results


def fuse_backward(args: signatures.FuseBackward) -> tuple[Tensor, Tensor]:
    dx = memory.empty_like(args.x)
    x_map, result_map, (_held, result) = with_gradient(args.x, dx)
    inputs = [dense(each) for each in (args.grad, args.scores, args.choice, args.valid)]
    dscores = args.scores.new_empty(args.scores.shape)
    _native.fuse_backward(
        x_map,
        result_map,
        args.scores.shape[2],
        *map(address, (*inputs, dscores)),
        torch.get_num_threads(),
    )
    return dx if dx is result else dx.copy_(result), in_strides_of(args.scores, dscores)


def inter_frame_distance(args: signatures.InterFrameDistance) -> Tensor:
    b, t, h, w = args.attention.shape
    inputs, distance = [dense(each) for each in args], args.results()
    _native.inter_frame_distance(
        DTYPE_CODES[args.attention.dtype],
        *(b, t, h * w, args.pairs.shape[1]),
        *map(address, (*inputs, distance)),
        torch.get_num_threads(),
    )
    return distance


def inter_frame_distance_backward(args: signatures.InterFrameDistanceBackward) -> Tensor:
    b, t, h, w = args.attention.shape
    inputs = [dense(each) for each in args]
    result = args.attention.new_empty(args.attention.shape)
    _native.inter_frame_distance_backward(
        DTYPE_CODES[args.attention.dtype],
        *(b, t, h * w, args.pairs.shape[1]),
        *map(address, (*inputs, result)),
        torch.get_num_threads(),
    )
    return in_strides_of(args.attention, result)
