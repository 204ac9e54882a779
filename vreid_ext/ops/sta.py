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

from vreid_ext import _checks, backends
from vreid_ext.backends import reference
from vreid_ext.ops._library import register
from vreid_ext.precision import accumulator, in_full, widened


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
    backend = backends.choose("attention_map", backend, x.device, x.dtype)
    if backend == "reference":
        return in_full(reference.attention_map, x, x, energy, normalize)
    return _attention_map(x, energy, normalize, backend)[0]


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
    backend = backends.choose("block_scores", backend, attention.device, attention.dtype)
    if backend == "reference":
        return in_full(reference.block_scores, attention, attention, valid, blocks)
    return _block_scores(attention, valid, blocks, backend)[0]


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
    backend = backends.choose("fuse", backend, x.device, x.dtype)
    if backend == "reference":
        return in_full(reference.fuse, x, x, scores, valid)
    return _fuse(x, scores, valid, backend)[0]


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
    backend = backends.choose("sta_pool", backend, x.device, x.dtype)
    if backend == "reference":
        return STAPool(*in_full(reference.sta_pool, x, x, valid, blocks))
    return STAPool(*_sta_pool(x, valid, blocks, backend)[:3])


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
    backend = backends.choose("inter_frame_distance", backend, attention.device, attention.dtype)
    if backend == "reference":
        return in_full(reference.inter_frame_distance, attention, attention, index)
    return _inter_frame_distance(attention, index, backend)


def _attention_map_fake(x: Tensor, energy: str, normalize: str) -> tuple[Tensor, Tensor]:
    clips, frames, _, height, width = x.shape
    dtype = accumulator(x.dtype)
    return x.new_empty((clips, frames, height, width), dtype=dtype), x.new_empty((clips, frames), dtype=dtype)


def _attention_map_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, ctx.energy, ctx.normalize, ctx.backend = inputs
    ctx.save_for_backward(x, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _attention_map_grad(ctx: Any, grad: Tensor | None, _norm: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None
    dx = _attention_map_backward(grad, *ctx.saved_tensors, ctx.energy, ctx.normalize, ctx.backend)
    return dx, None, None, None


_attention_map_backward = register(
    "attention_map_backward(Tensor grad, Tensor x, Tensor attention, Tensor norm, str energy, str normalize)"
    " -> Tensor",
    fake=lambda grad, x, *_: torch.empty_like(x),
)
_attention_map = register(
    "attention_map(Tensor x, str energy, str normalize) -> (Tensor, Tensor)",
    fake=_attention_map_fake,
    setup_context=_attention_map_context,
    backward=_attention_map_grad,
)


def _block_scores_fake(attention: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, Tensor]:
    clips, frames = attention.shape[:2]
    return attention.new_empty((clips, frames, blocks)), attention.new_empty((clips, blocks))


def _block_scores_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    attention, valid, _, ctx.backend = inputs
    ctx.save_for_backward(attention, valid, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _block_scores_grad(ctx: Any, grad: Tensor | None, _total: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None
    return _block_scores_backward(grad, *ctx.saved_tensors, ctx.backend), None, None, None


_block_scores_backward = register(
    "block_scores_backward(Tensor grad, Tensor attention, Tensor? valid, Tensor scores, Tensor total)"
    " -> Tensor",
    fake=lambda grad, attention, *_: torch.empty_like(attention),
)
_block_scores = register(
    "block_scores(Tensor attention, Tensor? valid, int blocks) -> (Tensor, Tensor)",
    fake=_block_scores_fake,
    setup_context=_block_scores_context,
    backward=_block_scores_grad,
)


def _fuse_fake(x: Tensor, scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    clips, _, channels, height, width = x.shape
    choice = x.new_empty((clips, scores.shape[2]), dtype=torch.int64)
    return x.new_empty((clips, 2 * channels, height, width)), choice


def _fuse_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, scores, valid, ctx.backend = inputs
    ctx.save_for_backward(x, scores, output[1], valid)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _fuse_grad(ctx: Any, grad: Tensor | None, _choice: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None
    return *_fuse_backward(grad, *ctx.saved_tensors, ctx.backend), None, None


_fuse_backward = register(
    "fuse_backward(Tensor grad, Tensor x, Tensor scores, Tensor choice, Tensor? valid) -> (Tensor, Tensor)",
    fake=lambda grad, x, scores, *_: (torch.empty_like(x), torch.empty_like(scores)),
)
_fuse = register(
    "fuse(Tensor x, Tensor scores, Tensor? valid) -> (Tensor, Tensor)",
    fake=_fuse_fake,
    setup_context=_fuse_context,
    backward=_fuse_grad,
)


def _sta_pool_fake(x: Tensor, valid: Tensor | None, blocks: int) -> tuple[Tensor, ...]:
    clips, frames, channels, height, width = x.shape
    dtype = accumulator(x.dtype)
    return (
        x.new_empty((clips, 2 * channels)),
        x.new_empty((clips, frames, blocks), dtype=dtype),
        x.new_empty((clips, frames, height, width), dtype=dtype),
        x.new_empty((clips, frames, blocks, channels), dtype=dtype),
        x.new_empty((clips, frames), dtype=dtype),
        x.new_empty((clips, blocks), dtype=dtype),
        x.new_empty((clips, blocks), dtype=torch.int64),
    )


def _sta_pool_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, valid, _, ctx.backend = inputs
    ctx.save_for_backward(x, valid, *output[1:])
    ctx.mark_non_differentiable(*output[3:])
    ctx.set_materialize_grads(False)


def _sta_pool_grad(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if all(grad is None for grad in grads[:3]):
        return None, None, None, None
    return _sta_pool_backward(*grads[:3], *ctx.saved_tensors, ctx.backend), None, None, None


_sta_pool_backward = register(
    "sta_pool_backward(Tensor? grad_pooled, Tensor? grad_scores, Tensor? grad_attention, Tensor x,"
    " Tensor? valid, Tensor scores, Tensor attention, Tensor sums, Tensor energy, Tensor total,"
    " Tensor choice) -> Tensor",
    fake=lambda grad_pooled, grad_scores, grad_attention, x, *_: torch.empty_like(x),
)
_sta_pool = register(
    "sta_pool(Tensor x, Tensor? valid, int blocks)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    fake=_sta_pool_fake,
    setup_context=_sta_pool_context,
    backward=_sta_pool_grad,
)


def _inter_frame_distance_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    attention, pairs, ctx.backend = inputs
    ctx.save_for_backward(attention, pairs)


def _inter_frame_distance_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _inter_frame_distance_backward(grad, *ctx.saved_tensors, ctx.backend), None, None


_inter_frame_distance_backward = register(
    "inter_frame_distance_backward(Tensor grad, Tensor attention, Tensor pairs) -> Tensor",
    fake=lambda grad, attention, pairs: torch.empty_like(attention),
)
_inter_frame_distance = register(
    "inter_frame_distance(Tensor attention, Tensor pairs) -> Tensor",
    fake=lambda attention, pairs: attention.new_empty(attention.shape[:1]),
    setup_context=_inter_frame_distance_context,
    backward=_inter_frame_distance_grad,
)
