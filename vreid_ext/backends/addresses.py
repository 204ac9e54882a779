"""How tensors are handed to the C++ modules: addresses, sizes, strides and a code for the dtype."""

import torch
from torch import Tensor

# DType in csrc/common/types.h
DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}

# (address, dtype code, B, T, C, L, strides of B, T, C, L): FeatureMap in csrc/common/types.h
FeatureMap = tuple[int, int, int, int, int, int, int, int, int, int]


def feature_map(x: Tensor) -> FeatureMap | None:
    """The kernels' view of a map (B,T,C,H,W) whose cells or channels are adjacent; None for other strides."""
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
    return x.data_ptr(), DTYPE_CODES[x.dtype], b, t, c, h * w, stride_b, stride_t, stride_c, stride_l


def readable(x: Tensor) -> tuple[Tensor, FeatureMap]:
    """x and its map, or those of a contiguous copy where the kernels do not read its strides."""
    x_map = feature_map(x)
    if x_map is None:
        x = x.contiguous()
        x_map = feature_map(x)
        assert x_map is not None
    return x, x_map


def with_gradient(x: Tensor, dx: Tensor) -> tuple[FeatureMap, FeatureMap, tuple[Tensor, Tensor]]:
    """The maps of x and of its gradient dx in one memory layout, and the tensors behind them.

    Where the kernels cannot write dx, a contiguous tensor takes its place, to be copied over; where x has
    another layout than that, a copy of x does.
    """
    result, result_map = dx, feature_map(dx)
    if result_map is None:
        result, result_map = readable(torch.empty(x.shape, dtype=x.dtype, device=x.device))
    x_map = feature_map(x)
    if x_map is None or (x_map[-1] == 1) != (result_map[-1] == 1):
        x, x_map = readable(torch.empty_like(result).copy_(x))
    return x_map, result_map, (x, result)


# (address, dtype code, N, D, stride of N): Rows in csrc/common/types.h
Rows = tuple[int, int, int, int, int]


def rows(x: Tensor | None) -> Rows:
    """The kernels' view of embeddings (N,D) whose numbers are adjacent; None is a null address."""
    if x is None:
        return 0, 0, 0, 0, 0
    return x.data_ptr(), DTYPE_CODES[x.dtype], *x.shape, x.stride(0)


def adjacent(x: Tensor) -> Tensor:
    """x (N,D), or a copy where the numbers of a row are not adjacent."""
    return x if x.stride(1) == 1 else x.contiguous()


def dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def in_strides_of(model: Tensor, values: Tensor) -> Tensor:
    """Contiguous values in the strides of `torch.empty_like(model)`, as the ops' shape functions promise."""
    out = torch.empty_like(model)
    return values if out.stride() == values.stride() else out.copy_(values)
