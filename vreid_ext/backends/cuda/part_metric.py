"""The part metric: distances and slopes by kernels, matrix products of the gradients by torch."""

from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import DTYPE_CODES, PartMetric, PartRows, address
from vreid_ext.backends.cuda.launch import Operand, halves, queue, split_rows, squares


def part_distance(args: signatures.PartDistance) -> tuple[Tensor, Tensor]:
    distance, unused = args.results()
    sides = _side(args.q_features, args.q_weights), _side(args.g_features, args.g_weights)
    _cuda.part_distance(*_description(*sides), address(distance), *queue(distance))
    return distance, unused


def part_distance_backward(args: signatures.PartDistanceBackward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, q_features, q_weights, g_features, g_weights, _ = args
    grad = args.grad.contiguous()
    query, gallery = _side(q_features, q_weights), _side(g_features, g_weights)
    description = _description(query, gallery)
    dq, dg = grad.new_empty(q_features.shape), grad.new_empty(g_features.shape)
    dwq, dwg = q_weights.new_empty(q_weights.shape), g_weights.new_empty(g_weights.shape)
    slope, length = torch.empty_like(grad), torch.empty_like(grad)
    with torch.autocast(grad.device.type, enabled=False):
        for r in range(q_features.shape[1]):
            _cuda.part_slopes(*description, r, *map(address, (grad, slope, length)), *queue(grad))
            # d psi / d f_i = sum_j slope_ij (f_i - g_j), and likewise for g_j. Subtract one gallery row
            # first: a common offset of all features would only cost precision in the products.
            f, g = (each[:, r].float() - g_features[:1, r] for each in (q_features, g_features))
            dq[:, r] = torch.addmm(slope.sum(1, keepdim=True) * f, slope, g, alpha=-1)
            dg[:, r] = torch.addmm(slope.sum(0)[:, None] * g, slope.T, f, alpha=-1)
            dwq[:, r] = length @ g_weights[:, r]
            dwg[:, r] = length.T @ q_weights[:, r]
    return dq.to(q_features.dtype), dwq, dg.to(g_features.dtype), dwg


class Side(NamedTuple):
    """Features (n,R,D), weights (n,R), and the rows of the features for the products."""

    features: Tensor
    weights: Tensor
    operand: Operand

    @property
    def description(self) -> PartRows:
        factor = self.operand.factor if self.features.dtype == torch.float32 else None
        return PartRows(
            *self.operand.place, *map(address, (factor, self.features, self.operand.square, self.weights))
        )


def _side(features: Tensor, weights: Tensor) -> Side:
    features = features.contiguous()
    flat = features.flatten(0, 1)
    if features.dtype == torch.float32:
        operand = split_rows(flat)
    else:
        square = squares(flat)
        operand = Operand(halves(flat), square, square)  # without a factor
    return Side(features, weights.contiguous(), operand)


def _description(query: Side, gallery: Side) -> tuple[PartMetric, PartRows, PartRows]:
    n, parts, dim = query.features.shape
    sizes = PartMetric(DTYPE_CODES[query.features.dtype], n, len(gallery.features), parts, dim)
    return sizes, query.description, gallery.description
