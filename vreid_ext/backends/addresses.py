"""Descriptions of tensors for the C++ modules: address, sizes, strides and a dtype code."""

import torch
from torch import Tensor

# DType in csrc/common/types.h
DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}

# (address, dtype code, B, T, C, L, strides of B, T, C, L): FeatureMap in csrc/common/types.h
FeatureMap = tuple[int, int, int, int, int, int, int, int, int, int]


def feature_map(x: Tensor) -> FeatureMap | None:
    """The kernels' view of a map (B,T,C,H,W) with contiguous cells or channels; None for other strides."""
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
    """x and its view, or a contiguous copy and its view if the kernels do not support the strides of x."""
    x_map = feature_map(x)
    if x_map is None:
        x = x.contiguous()
        x_map = feature_map(x)
        assert x_map is not None
    return x, x_map


def with_gradient(x: Tensor, dx: Tensor) -> tuple[FeatureMap, FeatureMap, tuple[Tensor, Tensor]]:
    """Views of x and of its gradient in the same memory layout, and the tensors (x, result) of these views.

    `result` is dx, or a contiguous tensor if the kernels do not support the strides of dx. The caller then
    copies it to dx. If the layout of x differs from that of `result`, x is copied to the latter.
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
    """The kernels' view of embeddings (N,D) with contiguous rows; a null address for None."""
    if x is None:
        return 0, 0, 0, 0, 0
    return x.data_ptr(), DTYPE_CODES[x.dtype], *x.shape, x.stride(0)


def contiguous_rows(x: Tensor) -> Tensor:
    """x (N,D), or a copy if its rows are not contiguous."""
    return x if x.stride(1) == 1 else x.contiguous()


def dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def in_strides_of(model: Tensor, values: Tensor) -> Tensor:
    """Contiguous values in the strides of `torch.empty_like(model)`, as declared by the shape functions."""
    out = torch.empty_like(model)
    return values if out.stride() == values.stride() else out.copy_(values)
