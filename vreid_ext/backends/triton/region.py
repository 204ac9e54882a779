"""Launches of the DRSTA kernels; torch computes softmaxes. For the ops see `vreid_ext.ops.region`."""

from math import ceil

import torch
from torch import Tensor

from vreid_ext.backends import signatures
from vreid_ext.backends.reference.region import frame_weights
from vreid_ext.backends.triton import region_kernels as kernels
from vreid_ext.backends.triton.configs import REGION_C, REGION_D, REGION_I, REGION_OVERLAP_I
from vreid_ext.backends.triton.launch import launch, on_device
from vreid_ext.backends.triton.maps import flat, mask, walk


def region_pool(args: signatures.RegionPool) -> tuple[Tensor, Tensor, Tensor]:
    x = args.x
    b, t, c, h, w = x.shape
    regions = args.logits.shape[2]
    weights = args.logits.contiguous().softmax(-1)
    features = x.new_empty((b, t, regions, c))
    overlap = weights.new_empty((b, t))
    with on_device(x):
        launch(
            kernels.gather_regions, (b * t, ceil(c / REGION_C)),
            x, weights, features, t, c, regions, h * w, *walk(x), FLAT=flat(x),
            BLOCK_K=_padded(regions), BLOCK_C=REGION_C, BLOCK_I=REGION_I,
        )  # fmt: skip
        _overlap(weights, overlap, root=True, unit=True)
    return features, weights, overlap


def region_pool_backward(args: signatures.RegionPoolBackward) -> tuple[Tensor, Tensor]:
    x, grad_features = args.x, args.grad_features
    b, t, c = x.shape[:3]
    regions, cells = args.weights.shape[2:]
    weights = args.weights.contiguous()
    slope = torch.zeros_like(weights) if args.grad_weights is None else args.grad_weights
    with on_device(x):
        if grad_features is None:
            dx = torch.zeros_like(x)
        else:
            dx = torch.empty_like(x)
            tiles = ceil(c / REGION_C)
            parts = weights.new_empty((b, t, tiles, regions, cells))
            launch(
                kernels.region_gradients, (b * t, tiles),
                x, dx, weights, grad_features.contiguous(), parts, t, c, regions, cells, *walk(x),
                *walk(dx)[1:], FLAT=flat(x, dx),
                BLOCK_K=_padded(regions), BLOCK_C=REGION_C, BLOCK_I=REGION_I,
            )  # fmt: skip
            slope = slope + parts.sum(2)
        slope = weights * slope
        if args.grad_overlap is not None:
            steep = _overlap_gradient(args.grad_overlap, weights, root=True, unit=True)
            slope = slope + steep
        return slope - weights * slope.sum(3, keepdim=True), dx


def hellinger_overlap(args: signatures.HellingerOverlap) -> Tensor:
    overlap = args.results()
    with on_device(args.weights):
        _overlap(args.weights.contiguous(), overlap, root=args.form == "hellinger", unit=False)
    return overlap


def hellinger_overlap_backward(args: signatures.HellingerOverlapBackward) -> Tensor:
    with on_device(args.weights):
        return _overlap_gradient(
            args.grad, args.weights.contiguous(), root=args.form == "hellinger", unit=False
        )


def temporal_pool(args: signatures.TemporalPool) -> tuple[Tensor, Tensor]:
    b, t, k, d = args.features.shape
    weights = frame_weights(args.scores, args.valid).contiguous()
    pooled = args.features.new_empty((b, k, d))
    with on_device(args.features):
        launch(
            kernels.pool_frames, (b, k, ceil(d / REGION_D)),
            weights, args.features.contiguous(), mask(args.valid), pooled, t, k, d, BLOCK_D=REGION_D,
        )  # fmt: skip
    return pooled, weights


def temporal_pool_backward(args: signatures.TemporalPoolBackward) -> tuple[Tensor, Tensor]:
    b, t, k, d = args.features.shape
    weights = args.weights.contiguous()
    slope = weights.new_empty((b, t, k))
    dfeatures = args.features.new_empty(args.features.shape)
    with on_device(args.features):
        launch(
            kernels.frame_gradients, (b, t, k),
            args.grad.contiguous(), weights, args.features.contiguous(), mask(args.valid), slope, dfeatures,
            t, k, d, BLOCK_D=REGION_D,
        )  # fmt: skip
    return weights * (slope - (weights * slope).sum(1, keepdim=True)), dfeatures


def _overlap(weights: Tensor, result: Tensor, *, root: bool, unit: bool) -> None:
    b, t, regions, cells = weights.shape
    launch(
        kernels.overlap, (b * t,), weights, result, regions, cells, ROOT=root, UNIT=unit,
        BLOCK_K=_padded(regions), BLOCK_I=REGION_OVERLAP_I,
    )  # fmt: skip


def _overlap_gradient(grad: Tensor, weights: Tensor, *, root: bool, unit: bool) -> Tensor:
    b, t, regions, cells = weights.shape
    slope = weights.new_empty(weights.shape)
    launch(
        kernels.overlap_gradient, (b * t,), grad.contiguous(), weights, slope, regions, cells, ROOT=root,
        UNIT=unit, BLOCK_K=_padded(regions), BLOCK_I=REGION_OVERLAP_I,
    )  # fmt: skip
    return slope


def _padded(regions: int) -> int:
    """The next power of two, as Triton requires for block sizes."""
    return 1 << (regions - 1).bit_length()
