"""Spatial-temporal attention without parameters (Fu et al., "STA", AAAI 2019).

`sta_pool` computes the whole module in one read of the feature map. `attention_map`, `block_scores`, `fuse`
and `inter_frame_distance` are its single steps. Symbols: B clips, T frames, C channels, H x W cells
(L = H W), K row blocks.

Common to all ops: inputs are float16, bfloat16, float32 or float64 and are never modified. Sums are
accumulated in float32 or wider, in an order that depends only on the shapes, so the same inputs give the same
bits. If `x` is contiguous, channels_last or a slice of either, it is not copied. NaN and infinity propagate,
except from frames that `valid` excludes. `backend` is "auto", "reference", "native", "triton" or "cuda".
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.backends import signatures
from vreid_ext.ops._library import register
from vreid_ext.precision import widened


class STAPool(NamedTuple):
    """Result of `sta_pool`.

    Attributes:
        pooled: (B,2C), dtype of x: mean of the max-fused map, then of the weighted map.
        scores: (B,T,K), float32 or wider: S(n,k) of Eq. 4; sums to one over the valid frames.
        attention: (B,T,H,W), float32 or wider: g_n of Eq. 1; sums to one over the cells of a valid frame.
    """

    pooled: Tensor
    scores: Tensor
    attention: Tensor


def attention_map(
    x: Tensor, energy: str = "sum_square", normalize: str = "sum", *, backend: str = "auto"
) -> Tensor:
    """Attention map of each frame (STA, Eq. 1).

        q(h,w) = sum_c x(c,h,w)^2            g = q / sum_{h,w} q

    Args:
        x: feature maps (B,T,C,H,W).
        energy: "sum_square", as in the equation, or "l2": q is the norm over the channels, the square root
            of that sum (as in a public re-implementation).
        normalize: "sum", as in the equation, or "l2": g = q / sqrt(sum q^2), as in the paper's text.

    Returns:
        (B,T,H,W), float32 (float64 for float64 input). A frame of zeros gives the uniform map, 1/L or
        1/sqrt(L), with gradient zero.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("x", x, "(B,T,C,H,W)")
    _checks.choice("energy", energy, ("sum_square", "l2"))
    _checks.choice("normalize", normalize, ("sum", "l2"))
    return _attention_map(backend, x, energy, normalize)


def block_scores(
    attention: Tensor, blocks: int = 4, valid: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Attention scores of K row blocks over T frames (STA, Eq. 3 and 4).

        s(n,k) = sum_{(i,j) in block k} |g_n(i,j)|          S(n,k) = s(n,k) / sum_n s(n,k)

    Args:
        attention: (B,T,H,W).
        blocks: K, a divisor of H; block k holds rows k H/K to (k+1) H/K - 1.
        valid: (B,T) bool, the frames to include; None for all. Excluded frames have score zero.

    Returns:
        (B,T,K), float32 (float64 for float64 input). A block that is zero in every frame has the same score
        in each valid frame, with gradient zero.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("attention", attention, "(B,T,H,W)")
    _checks.row_blocks("blocks", blocks, attention.shape[2])
    _checks.mask("valid", valid, tuple(attention.shape[:2]), attention.device)
    attention = widened(attention)
    return _block_scores(backend, attention, valid, blocks)


def fuse(x: Tensor, scores: Tensor, valid: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """Feature fusion (STA, Algorithm 1): the two maps F_fuse = [F_1, F_2].

        F_1 in block k = x[argmax_n S(n,k)] in block k          F_2 in block k = sum_n S(n,k) x[n] in block k

    Args:
        x: feature maps (B,T,C,H,W).
        scores: (B,T,K) with K a divisor of H. If scores are equal, the first frame is chosen.
        valid: (B,T) bool, the frames to include; None for all.

    Returns:
        (B,2C,H,W) in the dtype of x, F_1 before F_2. A clip without a valid frame gives zeros. Gradients flow
        to the scores through F_2 only; the argmax has none.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("x", x, "(B,T,C,H,W)")
    _checks.floating("scores", scores, "(B,T,K)")
    _checks.same_device("scores", scores, x.device)
    if scores.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"scores: expected shape (B,T,K) with (B,T) = {tuple(x.shape[:2])}, got {tuple(scores.shape)}"
        )
    _checks.row_blocks("scores.shape[2]", int(scores.shape[2]), x.shape[3])
    _checks.mask("valid", valid, tuple(x.shape[:2]), x.device)
    scores = widened(scores, x.dtype)
    return _fuse(backend, x, scores, valid)


def sta_pool(x: Tensor, blocks: int = 4, valid: Tensor | None = None, *, backend: str = "auto") -> STAPool:
    """Spatial-temporal attention, fusion and global average pooling in one read of the feature map
    (STA, Eq. 1 to 4 and Algorithm 1).

    After pooling, the fused maps need only the block sums P(n,k,c) = sum_{i in block k} x(n,c,i):

        pooled = [ 1/L sum_k P(m_k,k,c),  1/L sum_k sum_n S(n,k) P(n,k,c) ]        m_k = argmax_n S(n,k)

    so one pass that accumulates both P and the energy of Eq. 1 is enough. The result equals `attention_map`,
    `block_scores`, `fuse` and a mean over the cells. Backward reads x once and writes its gradient once.

    Args:
        x: feature maps (B,T,C,H,W).
        blocks: K, a divisor of H. With K = 1 all scores are equal up to rounding, so rounding decides m_k.
        valid: (B,T) bool, the frames to include, for clips of unequal length; None for all. Excluded frames
            have attention, score and gradient zero, even if they contain NaN.

    Returns:
        `STAPool(pooled (B,2C), scores (B,T,K), attention (B,T,H,W))`, each differentiable. A frame of zeros
        has uniform attention, with gradient zero. A clip without a valid frame gives zeros.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("x", x, "(B,T,C,H,W)")
    _checks.row_blocks("blocks", blocks, x.shape[3])
    _checks.mask("valid", valid, tuple(x.shape[:2]), x.device)
    return STAPool(*_sta_pool(backend, x, valid, blocks))


def inter_frame_distance(
    attention: Tensor,
    pairs: str = "random",
    generator: torch.Generator | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """Inter-frame regularization of each clip (STA, Eq. 6): ||g_i - g_j||_F.

    Args:
        attention: (B,T,H,W).
        pairs: "random", two different frames sampled for every clip as in the paper, or "all", the mean over
            the T (T-1) / 2 pairs.
        generator: for the sampling; None for torch's default generator of the tensor's device.

    Returns:
        (B,), float32 (float64 for float64 input). A clip of one frame gives zero; equal frames give zero
        with gradient zero.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    _checks.floating("attention", attention, "(B,T,H,W)")
    _checks.choice("pairs", pairs, ("random", "all"))
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected None or a torch.Generator, got {type(generator).__name__}")
    clips, frames = attention.shape[:2]
    attention = widened(attention)
    if frames == 1:
        return attention.sum((1, 2, 3)) * 0
    if pairs == "all":
        index = torch.triu_indices(frames, frames, 1, device=attention.device).T.expand(clips, -1, -1)
    else:
        draw = torch.rand(clips, frames, generator=generator, dtype=torch.float32, device=attention.device)
        index = draw.argsort(1)[:, None, :2]
    return _inter_frame_distance(backend, attention, index)


def _attention_map_context(ctx: Any, args: signatures.AttentionMap, output: tuple[Tensor, ...]) -> None:
    ctx.energy, ctx.normalize = args.energy, args.normalize
    ctx.save_for_backward(args.x, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _attention_map_grad(ctx: Any, grad: Tensor | None, _norm: None) -> tuple[Tensor, ...]:
    if grad is None:
        return ()
    return (_attention_map_backward(ctx.backend, grad, *ctx.saved_tensors, ctx.energy, ctx.normalize),)


_attention_map_backward = register("attention_map_backward", signatures.AttentionMapBackward)
_attention_map = register(
    "attention_map",
    signatures.AttentionMap,
    public=1,
    setup_context=_attention_map_context,
    backward=_attention_map_grad,
)


def _block_scores_context(ctx: Any, args: signatures.BlockScores, output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(args.attention, args.valid, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _block_scores_grad(ctx: Any, grad: Tensor | None, _total: None) -> tuple[Tensor, ...]:
    return () if grad is None else (_block_scores_backward(ctx.backend, grad, *ctx.saved_tensors),)


_block_scores_backward = register("block_scores_backward", signatures.BlockScoresBackward)
_block_scores = register(
    "block_scores",
    signatures.BlockScores,
    public=1,
    setup_context=_block_scores_context,
    backward=_block_scores_grad,
)


def _fuse_context(ctx: Any, args: signatures.Fuse, output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(args.x, args.scores, output[1], args.valid)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _fuse_grad(ctx: Any, grad: Tensor | None, _choice: None) -> tuple[Tensor, ...]:
    return () if grad is None else _fuse_backward(ctx.backend, grad, *ctx.saved_tensors)


_fuse_backward = register("fuse_backward", signatures.FuseBackward)
_fuse = register("fuse", signatures.Fuse, public=1, setup_context=_fuse_context, backward=_fuse_grad)


def _sta_pool_context(ctx: Any, args: signatures.StaPool, output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(args.x, args.valid, *output[1:])
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)


def _sta_pool_grad(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, ...]:
    if all(grad is None for grad in grads[:3]):
        return ()
    return (_sta_pool_backward(ctx.backend, *grads[:3], *ctx.saved_tensors),)


_sta_pool_backward = register("sta_pool_backward", signatures.StaPoolBackward)
_sta_pool = register(
    "sta_pool", signatures.StaPool, public=3, setup_context=_sta_pool_context, backward=_sta_pool_grad
)


def _inter_frame_distance_context(ctx: Any, args: signatures.InterFrameDistance, output: Tensor) -> None:
    ctx.save_for_backward(*args)


def _inter_frame_distance_grad(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return (_inter_frame_distance_backward(ctx.backend, grad, *ctx.saved_tensors),)


_inter_frame_distance_backward = register(
    "inter_frame_distance_backward", signatures.InterFrameDistanceBackward
)
_inter_frame_distance = register(
    "inter_frame_distance",
    signatures.InterFrameDistance,
    setup_context=_inter_frame_distance_context,
    backward=_inter_frame_distance_grad,
)
