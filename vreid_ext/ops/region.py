"""Diverse region attention (Li et al., "Diversity Regularized Spatiotemporal Attention for Video-based Person
Re-identification", CVPR 2018; DRSTA below).

`region_pool` computes K spatial attentions and the diversity term between them in one read of the feature
map; `temporal_pool` averages their features over the frames. Symbols: B clips, T frames, C channels,
H x W cells (L = H W), K regions.

Common to all ops: inputs are float16, bfloat16, float32 or float64 and are never modified. Sums are
accumulated in float32 or wider, in an order that depends only on the shapes, so the same inputs give the same
bits. If `x` is contiguous, channels_last or a slice of either, it is not copied. NaN and infinity propagate.
`backend` is "auto", "reference", "native", "triton" or "cuda".
"""

from typing import Any, NamedTuple

from torch import Tensor

from vreid_ext import _checks
from vreid_ext.backends import signatures
from vreid_ext.ops._library import register
from vreid_ext.precision import widened


class RegionPool(NamedTuple):
    """Result of `region_pool`.

    Attributes:
        features: (B,T,K,C), dtype of x: the gated features x_{n,k} of Eq. 3.
        weights: (B,T,K,L), float32 or wider: the receptive fields s_{n,k} of Eq. 2; each sums to one.
        overlap: (B,T), float32 or wider: Q of Eq. 9; zero if the regions are disjoint, K (K - 1) if all are
            equal.
    """

    features: Tensor
    weights: Tensor
    overlap: Tensor


def region_pool(logits: Tensor, x: Tensor, *, backend: str = "auto") -> RegionPool:
    """K attention-weighted means over the cells of each frame, and the overlap of the K attentions (DRSTA,
    Eq. 2, 3 and 9), in one read of the feature map.

        s = softmax of the logits over the L cells          features(k) = sum_l s(k,l) x(l)
        Q = ||R R^T - I||_F^2          R(k,l) = sqrt(s(k,l))

    The gradient of Q is taken with respect to the logits. With A = R R^T - I (the diagonal of A is zero):

        dQ / dlogits(k,l) = 2 ( R(k,l) (A R)(k,l) - s(k,l) sum_j R(k,j) (A R)(k,j) )

    This contains no division and stays finite if a weight underflows, unlike a gradient that is computed
    through sqrt(s). Backward reads x once and writes its gradient once.

    Args:
        logits: (B,T,K,L), the responses e_{n,k,l} of Eq. 1, with cells in the order of `x.flatten(3)`.
        x: feature maps (B,T,C,H,W).

    Returns:
        `RegionPool(features (B,T,K,C), weights (B,T,K,L), overlap (B,T))`, each differentiable. With K = 1
        the overlap is zero.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("x", x, "(B,T,C,H,W)")
    _checks.floating("logits", logits, "(B,T,K,L)")
    _checks.same_device("logits", logits, x.device)
    expected = (*x.shape[:2], x.shape[3] * x.shape[4])
    if (*logits.shape[:2], logits.shape[3]) != expected:
        raise ValueError(
            f"logits: expected shape (B,T,K,L) with (B,T,L) = {tuple(expected)} of x, "
            f"got {tuple(logits.shape)}"
        )
    logits = widened(logits, x.dtype)
    return RegionPool(*_region_pool(backend, logits, x))


def hellinger_overlap(weights: Tensor, form: str = "hellinger", *, backend: str = "auto") -> Tensor:
    """Overlap of the K receptive fields of each frame, for given weights (DRSTA, Eq. 9 and 10).

        "hellinger"   Q  = ||R R^T - I||_F^2,  R = sqrt(weights)
        "text"        Q' = ||S S^T - I||_F^2,  S = weights, as used for text embedding; also favors weights
                      that are concentrated on one cell

    Args:
        weights: (B,T,K,L), not negative. For "hellinger" the rows should sum to one; the diagonal of
            R R^T - I penalizes other sums.

    Returns:
        (B,T), float32 (float64 for float64 input). A weight of zero has gradient zero for "hellinger", where
        the derivative of the square root is infinite. `region_pool` does not need this rule, because it
        differentiates with respect to the logits.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("weights", weights, "(B,T,K,L)")
    _checks.choice("form", form, ("hellinger", "text"))
    weights = widened(weights)
    return _hellinger_overlap(backend, weights, form)


def temporal_pool(
    scores: Tensor, features: Tensor, valid: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Attention-weighted mean over the frames for each region (DRSTA, Eq. 12 and 13).

        t(n,k) = softmax over n of scores(n,k)          pooled(k) = sum_n t(n,k) features(n,k)

    Eq. 12 is printed without the exponential; the paper's text calls it a softmax.

    Args:
        scores: (B,T,K), the responses e_{n,k} of Eq. 11.
        features: (B,T,K,D).
        valid: (B,T) bool, the frames to include; None for all. Excluded frames are not read.

    Returns:
        (B,K,D) in the dtype of features. A clip without a valid frame gives zeros.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("features", features, "(B,T,K,D)")
    _checks.floating("scores", scores, "(B,T,K)")
    _checks.same_device("scores", scores, features.device)
    if scores.shape != features.shape[:3]:
        raise ValueError(
            f"scores: expected shape (B,T,K) = {tuple(features.shape[:3])} of features, "
            f"got {tuple(scores.shape)}"
        )
    _checks.mask("valid", valid, tuple(features.shape[:2]), features.device)
    scores = widened(scores, features.dtype)
    return _temporal_pool(backend, scores, features, valid)


def _region_pool_context(ctx: Any, args: signatures.RegionPool, output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[1], args.x)
    ctx.set_materialize_grads(False)


def _region_pool_grad(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, ...]:
    if all(grad is None for grad in grads):
        return ()
    return _region_pool_backward(ctx.backend, *grads, *ctx.saved_tensors)


_region_pool_backward = register("region_pool_backward", signatures.RegionPoolBackward)
_region_pool = register(
    "region_pool",
    signatures.RegionPool,
    device_of="x",
    setup_context=_region_pool_context,
    backward=_region_pool_grad,
)


def _hellinger_overlap_context(ctx: Any, args: signatures.HellingerOverlap, output: Tensor) -> None:
    ctx.form = args.form
    ctx.save_for_backward(args.weights)


def _hellinger_overlap_grad(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return (_hellinger_overlap_backward(ctx.backend, grad, *ctx.saved_tensors, ctx.form),)


_hellinger_overlap_backward = register("hellinger_overlap_backward", signatures.HellingerOverlapBackward)
_hellinger_overlap = register(
    "hellinger_overlap",
    signatures.HellingerOverlap,
    setup_context=_hellinger_overlap_context,
    backward=_hellinger_overlap_grad,
)


def _temporal_pool_context(ctx: Any, args: signatures.TemporalPool, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1], args.features, args.valid)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _temporal_pool_grad(ctx: Any, grad: Tensor | None, _weights: None) -> tuple[Tensor, ...]:
    return () if grad is None else _temporal_pool_backward(ctx.backend, grad, *ctx.saved_tensors)


_temporal_pool_backward = register("temporal_pool_backward", signatures.TemporalPoolBackward)
_temporal_pool = register(
    "temporal_pool",
    signatures.TemporalPool,
    device_of="features",
    public=1,
    setup_context=_temporal_pool_context,
    backward=_temporal_pool_grad,
)
