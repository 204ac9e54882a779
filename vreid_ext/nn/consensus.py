"""Pooling that excludes the blocks of a clip that do not agree with the same block in the other frames."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from vreid_ext import _checks


class ConsensusPool(NamedTuple):
    """Result of `ConsensusPooling`.

    Attributes:
        pooled: (B,C), in the dtype of the maps.
        scores: (B,T,K), the weights of the blocks, in float32 or wider. They add up to 1 over the frames and
            are 0 for excluded frames.
    """

    pooled: Tensor
    scores: Tensor


class ConsensusPooling(nn.Module):
    """Average pooling of a clip's feature maps, with small weights for blocks that disagree with the others.

    A frame with an occlusion, another person or blur differs from the other frames of its tracklet. With
    b[t,k] the mean of row block k of frame t, g the function `space`, and u[t,k] = g(b[t,k]) / |g(b[t,k])|,

        agreement[t,k] = cosine(u[t,k], sum over s != t of u[s,k])
        scores[:,k]    = softmax over t of sharpness * agreement[t,k]
        pooled         = 1/K sum over k and t of scores[t,k] b[t,k]

    With sharpness 0, and for a clip of one or two frames, this is average pooling. The layer has no
    parameters, so it can replace the average over frames in a trained model.

    Args:
        blocks: K, a divisor of the map's height.
        sharpness: at least 0.

    Call: `layer(x, valid=None, space=None)` with x (B,T,C,H,W) floating-point, valid (B,T) bool, False for
    frames to exclude, and a function `space` from (N,C) to (N,D) that maps blocks to the space in which they
    are compared, for example the batch normalization after the pooling, in evaluation mode; None: the blocks
    themselves. Returns a `ConsensusPool`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    Source: not from a paper; docs/accuracy.md has the figures.
    """

    def __init__(self, blocks: int = 4, sharpness: float = 5.0) -> None:
        super().__init__()
        self.blocks = _checks.integer("blocks", blocks, 1)
        self.sharpness = _checks.real("sharpness", sharpness, 0)

    def forward(
        self, x: Tensor, valid: Tensor | None = None, space: Callable[[Tensor], Tensor] | None = None
    ) -> ConsensusPool:
        blocks, scores = self.weigh(x, valid, space)
        return ConsensusPool(weighted(blocks, scores).mean(1), scores)

    def weigh(
        self, x: Tensor, valid: Tensor | None = None, space: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The blocks b (B,T,K,C) of maps and their scores (B,T,K); the arguments are those of a call."""
        _checks.floating("x", x, "(B,T,C,H,W)")
        _checks.row_blocks("blocks", self.blocks, x.shape[3])
        if valid is not None:
            _checks.mask("valid", valid, (x.shape[0], x.shape[1]), x.device)
            x = x.masked_fill(~valid[:, :, None, None, None], 0)  # excluded frames may contain NaN
        blocks = block_means(x, self.blocks)
        compared = blocks if space is None else space(blocks.flatten(0, 2)).unflatten(0, blocks.shape[:3])
        unit = normalize(compared.to(torch.promote_types(compared.dtype, torch.float32)), dim=3)
        if valid is not None:
            unit = unit.masked_fill(~valid[:, :, None, None], 0)
        agreement = self.sharpness * cosine_similarity(unit, unit.sum(1, keepdim=True) - unit, dim=3)
        if valid is not None:
            agreement = agreement.masked_fill(~valid[:, :, None], float("-inf"))
        scores = agreement.softmax(1)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, :, None], 0)  # NaN for clips without a valid frame
        return blocks, scores

    def extra_repr(self) -> str:
        return f"blocks={self.blocks}, sharpness={self.sharpness}"


def block_means(x: Tensor, blocks: int) -> Tensor:
    """Means (B,T,K,C) of the K row blocks of maps (B,T,C,H,W)."""
    return x.mean(4).unflatten(3, (blocks, -1)).mean(4).transpose(2, 3)


def weighted(blocks: Tensor, scores: Tensor) -> Tensor:
    """Sum (B,K,C) over the frames of blocks (B,T,K,C) with weights (B,T,K), in the dtype of the blocks."""
    return (scores.to(blocks.dtype)[..., None] * blocks).sum(1)
