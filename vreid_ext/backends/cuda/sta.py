"""STA kernels: allocates results and scratch, hands over addresses, strides and torch's current stream."""

import torch
from torch import Tensor

from vreid_ext import _cuda

_CODES = {torch.float32: 0, torch.bfloat16: 2, torch.float16: 3}

# (address, dtype code, B, T, C, L, strides of B, T, C, L): FeatureMap in csrc/common/types.h
_Map = tuple[int, int, int, int, int, int, int, int, int, int]


def sta_pool(x: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, ...]:
    x_map = _map(x)
    if x_map is None:
        x = x.contiguous()
        x_map = _map(x)
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
    valid = _dense(valid)
    _cuda.sta_pool(x_map, _address(valid), blocks, *map(_address, (squares, parts, *outputs)), *_queue(x))
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
    result = dx if _map(dx) is not None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if not _same_layout(x, result):
        x = torch.empty_like(result).copy_(x)
    inputs = [_dense(each) for each in (grad_pooled, grad_scores, grad_attention)]
    saved = [_dense(each) for each in (scores, attention, sums, energy, total, choice)]
    valid = _dense(valid)
    scratch = scores.new_empty((2, *scores.shape)), attention.new_empty(attention.shape)
    _cuda.sta_pool_backward(
        _map(x),
        _map(result),
        _address(valid),
        scores.shape[2],
        *map(_address, (*inputs, *saved, *scratch)),
        *_queue(x),
    )
    return dx if dx is result else dx.copy_(result)


def _queue(x: Tensor) -> tuple[int, int]:
    """Device and stream of the launches."""
    return x.get_device(), torch.cuda.current_stream(x.device).cuda_stream


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


def _same_layout(x: Tensor, y: Tensor) -> bool:
    x_map, y_map = _map(x), _map(y)
    return x_map is not None and y_map is not None and (x_map[-1] == 1) == (y_map[-1] == 1)
