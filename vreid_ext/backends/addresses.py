"""Descriptions of tensors for the C++ modules: addresses, sizes, strides and codes.

The modules export the fields of each tuple (`tuples`) and the names of the codes (`codes`);
python_tests/backends/test_addresses.py compares them with the definitions in this file.
"""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
METRIC_CODES = {"euclidean": 0, "squared": 1, "cosine": 2}

_Optional = TypeVar("_Optional", Tensor, Tensor | None)


class FeatureMap(NamedTuple):
    """A feature map (B,T,C,L) of L = H*W cells; `data` is an address, `dtype` a code."""

    data: int
    dtype: int
    B: int
    T: int
    C: int
    L: int
    stride_b: int
    stride_t: int
    stride_c: int
    stride_l: int


class Rows(NamedTuple):
    """Embeddings (N,D) with contiguous rows that start `stride` elements apart."""

    data: int
    dtype: int
    N: int
    D: int
    stride: int


class Panels(NamedTuple):
    """Rows (N,D) packed for products."""

    data: int
    N: int
    D: int


class PartSizes(NamedTuple):
    """Sizes of a tile of the part metric."""

    dtype: int
    parts: int
    rows: int
    cols: int
    D: int


class PartSide(NamedTuple):
    """One side of a tile of the part metric: features (n,parts,D) with contiguous rows, weights (n,parts)."""

    features: int
    row_stride: int
    part_stride: int
    weights: int
    weight_stride: int


class PartGradient(NamedTuple):
    """Gradients of a side; `add` is whether to add to them."""

    features: int
    weights: int
    add: bool


class PartMetric(NamedTuple):
    """Sizes of the part metric on a GPU, features (Q,R,D) and (G,R,D), and their dtype."""

    dtype: int
    Q: int
    G: int
    R: int
    D: int


class PartRows(NamedTuple):
    """One side of it: rows for the products and their factors; features, squared norms and weights (n,R).

    `stride` and `width` count bytes.
    """

    data: int
    stride: int
    width: int
    factor: int
    features: int
    square: int
    weight: int


class MineSide(NamedTuple):
    """Anchors or candidates of mining on a GPU: rows for the product (`stride` and `width` in bytes), their
    factors, squared norms and labels.
    """

    data: int
    rows: int
    stride: int
    width: int
    factor: int
    square: int
    labels: int


class Tile(NamedTuple):
    """A tile (Q,G) of distances, or of products to be computed, from gallery index `offset` on."""

    dtype: int
    Q: int
    G: int
    offset: int
    values: int
    scale: int
    shift: int
    kept: int
    left_start: int
    left: int


class Features(NamedTuple):
    """Features (Q,D) and (G,D) compared by `metric`, and their squared norms in float64, if known."""

    dtype: int
    metric: int
    D: int
    query: int
    gallery: int
    query_square: int
    gallery_square: int


class LabelledItems(NamedTuple):
    """Persons (Q,), (G,) and further labels (rules,Q), (rules,G) of queries and gallery items."""

    Q: int
    G: int
    rules: int
    query: int
    gallery: int
    query_label: int
    gallery_label: int
    same: int
    itself: int


class Sorted(NamedTuple):
    """Gallery items sorted by person, and the places of each query's person, positives and items left out."""

    order: int
    first: int
    last: int
    start: int
    left_start: int


class SparseRows(NamedTuple):
    """Sparse rows: row i has value[n] in column column[n], start[i] <= n < start[i+1]."""

    start: int
    column: int
    value: int
    entries: int
    dtype: int


def feature_map(x: Tensor) -> FeatureMap | None:
    """Describe a map (B,T,C,H,W) with contiguous cells or channels; None for other strides."""
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
    return FeatureMap(
        x.data_ptr(), DTYPE_CODES[x.dtype], b, t, c, h * w, stride_b, stride_t, stride_c, stride_l
    )


def readable(x: Tensor) -> tuple[Tensor, FeatureMap]:
    """x, or a contiguous copy if the kernels do not support the strides of x, and its `FeatureMap`."""
    x_map = feature_map(x)
    if x_map is None:
        x = x.contiguous()
        x_map = feature_map(x)
        assert x_map is not None
    return x, x_map


def with_gradient(x: Tensor, dx: Tensor) -> tuple[FeatureMap, FeatureMap, tuple[Tensor, Tensor]]:
    """`FeatureMap`s of x and of its gradient in one memory layout, and the tensors (x, result) they describe.

    `result` is dx, or a contiguous tensor if the kernels do not support the strides of dx; the caller then
    copies it to dx. If the layouts of x and `result` differ, x is copied to the layout of `result`.
    """
    result, result_map = dx, feature_map(dx)
    if result_map is None:
        result, result_map = readable(torch.empty(x.shape, dtype=x.dtype, device=x.device))
    x_map = feature_map(x)
    if x_map is None or (x_map.stride_l == 1) != (result_map.stride_l == 1):
        x, x_map = readable(torch.empty_like(result).copy_(x))
    return x_map, result_map, (x, result)


def rows(x: Tensor | None) -> Rows:
    """Describe embeddings (N,D) with contiguous rows; None gives a null address."""
    if x is None:
        return Rows(0, 0, 0, 0, 0)
    n, d = x.shape
    return Rows(x.data_ptr(), DTYPE_CODES[x.dtype], n, d, x.stride(0))


def contiguous_rows(x: _Optional) -> _Optional:
    """x (N,D), or a copy if its rows are not contiguous."""
    return x if x is None or x.stride(1) == 1 else x.contiguous()


def dense(tensor: _Optional) -> _Optional:
    return None if tensor is None else tensor.contiguous()


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def in_strides_of(model: Tensor, values: Tensor) -> Tensor:
    """Contiguous values in the strides of `torch.empty_like(model)`, as declared by the shape functions."""
    out = torch.empty_like(model)
    return values if out.stride() == values.stride() else out.copy_(values)
