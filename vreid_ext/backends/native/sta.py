"""STA kernels: allocates the results and hands over addresses, strides and torch's thread count."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends.native import memory

_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}

# (address, dtype code, B, T, C, L, strides of B, T, C, L): FeatureMap in csrc/common/types.h
_Map = tuple[int, int, int, int, int, int, int, int, int, int]


def sta_pool(x: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, ...]:
    x, x_map = _readable(x)
    b, t, c, h, w = x.shape
    acc = _accumulator(x.dtype)
    pooled = x.new_empty((b, 2 * c))
    scores = x.new_empty((b, t, blocks), dtype=acc)
    attention = x.new_empty((b, t, h, w), dtype=acc)
    sums = memory.empty((b, t, blocks, c), acc)
    energy = x.new_empty((b, t), dtype=acc)
    total = x.new_empty((b, blocks), dtype=acc)
    choice = x.new_empty((b, blocks), dtype=torch.int64)
    outputs = (pooled, scores, attention, sums, energy, total, choice)
    valid = _dense(valid)
    _native.sta_pool(x_map, _address(valid), blocks, *map(_address, outputs), torch.get_num_threads())
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
    x, x_map, result, result_map, dx = _with_gradient(x)
    inputs = [_dense(each) for each in (grad_pooled, grad_scores, grad_attention)]
    saved = [_dense(each) for each in (scores, attention, sums, energy, total, choice)]
    valid = _dense(valid)
    _native.sta_pool_backward(
        x_map,
        result_map,
        _address(valid),
        scores.shape[2],
        *map(_address, inputs),
        *map(_address, saved),
        torch.get_num_threads(),
    )
    return dx if dx is result else dx.copy_(result)


def attention_map(x: Tensor, energy: str, normalize: str) -> tuple[Tensor, Tensor]:
    x, x_map = _readable(x)
    b, t, _, h, w = x.shape
    attention = x.new_empty((b, t, h, w), dtype=_accumulator(x.dtype))
    norm = attention.new_empty((b, t))
    _native.attention_map(
        x_map,
        energy == "l2",
        normalize == "l2",
        _address(attention),
        _address(norm),
        torch.get_num_threads(),
    )
    return attention, norm


def attention_map_backward(
    grad: Tensor, x: Tensor, attention: Tensor, norm: Tensor, energy: str, normalize: str
) -> Tensor:
    x, x_map, result, result_map, dx = _with_gradient(x)
    inputs = [_dense(each) for each in (grad, attention, norm)]
    _native.attention_map_backward(
        x_map,
        result_map,
        energy == "l2",
        normalize == "l2",
        *map(_address, inputs),
        torch.get_num_threads(),
    )
    return dx if dx is result else dx.copy_(result)


def block_scores(attention: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, Tensor]:
    b, t, h, w = attention.shape
    inputs = [_dense(each) for each in (attention, valid)]
    scores = attention.new_empty((b, t, blocks))
    total = attention.new_empty((b, blocks))
    _native.block_scores(
        _CODES[attention.dtype],
        *(b, t, h * w, blocks),
        *map(_address, (*inputs, scores, total)),
        torch.get_num_threads(),
    )
    return scores, total


def block_scores_backward(
    grad: Tensor, attention: Tensor, valid: Tensor | None, scores: Tensor, total: Tensor
) -> Tensor:
    b, t, h, w = attention.shape
    inputs = [_dense(each) for each in (grad, attention, valid, scores, total)]
    result = attention.new_empty(attention.shape)
    _native.block_scores_backward(
        _CODES[attention.dtype],
        *(b, t, h * w, scores.shape[2]),
        *map(_address, (*inputs, result)),
        torch.get_num_threads(),
    )
    return _like(attention, result)


def fuse(x: Tensor, scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    x, x_map = _readable(x)
    b, _, c, h, w = x.shape
    blocks = scores.shape[2]
    inputs = [_dense(each) for each in (scores, valid)]
    fused = x.new_empty((b, 2 * c, h, w))
    choice = x.new_empty((b, blocks), dtype=torch.int64)
    _native.fuse(x_map, blocks, *map(_address, (*inputs, fused, choice)), torch.get_num_threads())
    return fused, choice


def fuse_backward(
    grad: Tensor, x: Tensor, scores: Tensor, choice: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    x, x_map, result, result_map, dx = _with_gradient(x)
    inputs = [_dense(each) for each in (grad, scores, choice, valid)]
    dscores = scores.new_empty(scores.shape)
    _native.fuse_backward(
        x_map,
        result_map,
        scores.shape[2],
        *map(_address, (*inputs, dscores)),
        torch.get_num_threads(),
    )
    return dx if dx is result else dx.copy_(result), _like(scores, dscores)


def inter_frame_distance(attention: Tensor, pairs: Tensor) -> Tensor:
    b, t, h, w = attention.shape
    inputs = [_dense(each) for each in (attention, pairs)]
    distance = attention.new_empty(b)
    _native.inter_frame_distance(
        _CODES[attention.dtype],
        *(b, t, h * w, pairs.shape[1]),
        *map(_address, (*inputs, distance)),
        torch.get_num_threads(),
    )
    return distance


def inter_frame_distance_backward(grad: Tensor, attention: Tensor, pairs: Tensor) -> Tensor:
    b, t, h, w = attention.shape
    inputs = [_dense(each) for each in (grad, attention, pairs)]
    result = attention.new_empty(attention.shape)
    _native.inter_frame_distance_backward(
        _CODES[attention.dtype],
        *(b, t, h * w, pairs.shape[1]),
        *map(_address, (*inputs, result)),
        torch.get_num_threads(),
    )
    return _like(attention, result)


def _like(model: Tensor, values: Tensor) -> Tensor:
    """`values` in the strides of `torch.empty_like(model)`, as the ops' shape functions promise."""
    return values if model.is_contiguous() else torch.empty_like(model).copy_(values)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _map(x: Tensor) -> _Map | None:
    """The kernels' view of a map whose cells or channels are adjacent; None for other strides."""
    b, t, c, h, w = x.shape
    stride_b, stride_t, stride_c, stride_h, stride_w = x.stride()
    if h * w == 1:
        stride_l = 1
    elif w == 1:
        stride_l = stride_h
    elif h == 1 or stride_h == w * stride_w:
        stride_l = stride_w
    else:
        return None
    if stride_l != 1 and stride_c != 1:
        return None
    return x.data_ptr(), _CODES[x.dtype], b, t, c, h * w, stride_b, stride_t, stride_c, stride_l


def _readable(x: Tensor) -> tuple[Tensor, _Map]:
    """x, or a contiguous copy where its strides are none that the kernels read."""
    x_map = _map(x)
    if x_map is None:
        x = x.contiguous()
        x_map = _map(x)
        assert x_map is not None
    return x, x_map


def _with_gradient(x: Tensor) -> tuple[Tensor, _Map, Tensor, _Map, Tensor]:
    """The map `x` and a tensor for its gradient in one memory layout, their maps, and the gradient to return.

    The gradient to return has the strides of `torch.empty_like(x)`; where the kernels cannot write those,
    they write a contiguous tensor that is copied over afterwards.
    """
    dx = memory.empty_like(x)
    result, result_map = dx, _map(dx)
    if result_map is None:
        result = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        result_map = _map(result)
        assert result_map is not None
    x_map = _map(x)
    if x_map is None or (x_map[-1] == 1) != (result_map[-1] == 1):
        x = torch.empty_like(result).copy_(x)
        x_map = _map(x)
        assert x_map is not None
    return x, x_map, result, result_map, dx
