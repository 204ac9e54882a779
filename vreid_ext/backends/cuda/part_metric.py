"""The part metric: distances and slopes by kernels, matrix products of the gradients by torch."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import PartMetric, address
from vreid_ext.backends.cuda.launch import in_float, queue


def part_distance(args: signatures.PartDistance) -> tuple[Tensor, Tensor]:
    distance, unused = args.results()
    sides = _side(args.q_features, args.q_weights), _side(args.g_features, args.g_weights)
    _cuda.part_distance(_description(*sides), address(distance), *queue(distance))
    return distance, unused


def part_distance_backward(args: signatures.PartDistanceBackward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, q_features, q_weights, g_features, g_weights, _ = args
    grad = args.grad.contiguous()
    query, gallery = _side(q_features, q_weights), _side(g_features, g_weights)
    description = _description(query, gallery)
    dq, dg = query[0].new_empty(q_features.shape), query[0].new_empty(g_features.shape)
    dwq, dwg = q_weights.new_empty(q_weights.shape), g_weights.new_empty(g_weights.shape)
    slope, length = torch.empty_like(grad), torch.empty_like(grad)
    with torch.autocast(grad.device.type, enabled=False):
        for r in range(q_features.shape[1]):
            _cuda.part_slopes(description, r, *map(address, (grad, slope, length)), *queue(grad))
            # d psi / d f_i = sum_j slope_ij (f_i - g_j), and likewise for g_j. Subtract one gallery row
            # first: a common offset of all features would only cost precision in the products.
            f, g = (each[:, r].float() - g_features[:1, r] for each in (q_features, g_features))
            dq[:, r] = torch.addmm(slope.sum(1, keepdim=True) * f, slope, g, alpha=-1)
            dg[:, r] = torch.addmm(slope.sum(0)[:, None] * g, slope.T, f, alpha=-1)
            dwq[:, r] = length @ g_weights[:, r]
            dwg[:, r] = length.T @ q_weights[:, r]
    return dq.to(q_features.dtype), dwq, dg.to(g_features.dtype), dwg


Side = tuple[Tensor, Tensor, Tensor]


def _side(features: Tensor, weights: Tensor) -> Side:
    """Features (n,R,D') in float32, zero-padded from D to D', squared norms (n,R) and weights (n,R)."""
    features = in_float(features)
    return features, features.square().sum(2), weights.contiguous()


def _description(query: Side, gallery: Side) -> PartMetric:
    n, parts, dim = query[0].shape
    (q, q_square, q_weight), (g, g_square, g_weight) = (map(address, side) for side in (query, gallery))
    return PartMetric(n, len(gallery[0]), parts, dim, q, q_square, q_weight, g, g_square, g_weight)
