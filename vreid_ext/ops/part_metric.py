"""The weighted part metric (Chen et al., "Spatial-Temporal Attention-aware Learning", TIP 2019).

Symbols: Q queries, G gallery items, R body parts, D features per part.
"""

from typing import Any

import torch
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.backends import signatures
from vreid_ext.ops._library import register
from vreid_ext.precision import accumulator


def part_distance(
    q_features: Tensor,
    q_weights: Tensor,
    g_features: Tensor,
    g_weights: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Distance of persons described by weighted body parts (STAL, Eq. 8), for all pairs.

        psi(i,j) = sum_r a_i^r a_j^r / (||a_i|| ||a_j||)  ||f_i^r - f_j^r||_2

    Computed tile by tile from R matrix products: memory O(QG + (Q + G) R D), without a (Q,G,R) tensor. An
    entry of the result depends only on its query and its gallery item, so queries and gallery may be
    processed in chunks.

    Args:
        q_features: f of the queries (Q,R,D), float16, bfloat16, float32 or float64. Parts may be strided.
        q_weights: part scores a of the queries (Q,R), any floating-point dtype. A row of zeros is treated
            as a row of ones.
        g_features: f of the gallery (G,R,D), the dtype and device of `q_features`.
        g_weights: part scores of the gallery (G,R).
        backend: "auto", "reference", "native", "triton" or "cuda".

    Returns:
        (Q,G), float32 (float64 for float64 features), differentiable with respect to all four inputs. Equal
        features have distance exactly zero and gradient zero. Distances below 10 % of the features' norms are
        computed from differences. CUDA and Triton compute a float32 product as three on tensor cores. The
        relative error of the gradient of a pair at distance d is a rounding error times norm / d. The result
        is deterministic: the same inputs give the same bits. NaN and infinity propagate.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("q_features", q_features, "(Q,R,D)")
    _checks.floating("g_features", g_features, "(G,R,D)")
    _checks.same_device("g_features", g_features, q_features.device)
    if g_features.shape[1:] != q_features.shape[1:]:
        raise ValueError(
            f"g_features: expected shape (G,R,D) with (R,D) = {tuple(q_features.shape[1:])} of q_features, "
            f"got {tuple(g_features.shape)}"
        )
    if g_features.dtype != q_features.dtype:
        raise TypeError(
            f"g_features: expected dtype {q_features.dtype} of q_features, got {g_features.dtype}"
        )
    dtype = accumulator(q_features.dtype)
    weights = []
    for name, value, features in (
        ("q_weights", q_weights, q_features),
        ("g_weights", g_weights, g_features),
    ):
        _checks.floating(name, value, f"({name[0].upper()},R)")
        _checks.same_device(name, value, q_features.device)
        if value.shape != features.shape[:2]:
            raise ValueError(
                f"{name}: expected shape {tuple(features.shape[:2])}, the first two axes of "
                f"{name[0]}_features, got {tuple(value.shape)}"
            )
        weights.append(_normalised(value.to(dtype)))
    if not len(q_features) or not len(g_features):
        # The result is empty but connected to both inputs, so that a nonempty input gets a gradient of zeros.
        return (q_features.sum((1, 2))[:, None] + g_features.sum((1, 2))).to(dtype)
    return _part_distance(backend, q_features, weights[0], g_features, weights[1])


def _normalised(weights: Tensor) -> Tensor:
    """L2-normalized rows. A row of zeros becomes uniform and has gradient zero."""
    norm = torch.linalg.vector_norm(weights, dim=1, keepdim=True)
    nonzero = norm != 0
    return torch.where(nonzero, weights / torch.where(nonzero, norm, 1), weights.shape[1] ** -0.5)


def _part_distance_context(ctx: Any, args: signatures.PartDistance, output: tuple[Tensor, Tensor]) -> None:
    distances = output[1]
    ctx.save_for_backward(*args, distances if distances.numel() else None)
    ctx.mark_non_differentiable(distances)
    ctx.set_materialize_grads(False)


def _part_distance_grad(ctx: Any, grad: Tensor | None, _distances: None) -> tuple[Tensor, ...]:
    return () if grad is None else _part_distance_backward(ctx.backend, grad, *ctx.saved_tensors)


_part_distance_backward = register("part_distance_backward", signatures.PartDistanceBackward)
_part_distance = register(
    "part_distance",
    signatures.PartDistance,
    public=1,
    setup_context=_part_distance_context,
    backward=_part_distance_grad,
)
