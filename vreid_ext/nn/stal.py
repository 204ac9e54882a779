"""Layers of STAL (Chen et al., "Spatial-Temporal Attention-aware Learning", TIP 2019)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vreid_ext import _checks
from vreid_ext.nn.frames import each_frame


class ResidualAttention(nn.Module):
    """Residual spatial attention (STAL, section III-B and the rows `ran_*` of Table I).

        y = x + x * sigmoid(up(down(x)))

    down: 1x1 convolution, max pooling with stride 2, 3x3 convolution; up: 4x4 transposed convolution with
    stride 2, 1x1 convolution to the channels of x. Batch normalization and ReLU after all convolutions except
    the last are our choice; the paper does not state them.

    Args:
        channels: C of the maps.
        width: channels after the first convolution, 64 in Table I; the next two have three times as many.

    Call: `layer(x)` with x (N,C,H,W) returns a tensor of the same shape.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("width", width)):
            _checks.integer(name, value, 1)
        wide = 3 * width
        self.down = nn.Sequential(
            *_convolution(channels, width, 1),
            nn.MaxPool2d(3, 2, padding=1),
            *_convolution(width, wide, 3),
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(wide, wide, 4, 2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        _checks.floating("x", x, "(N,C,H,W)")
        if x.shape[1] != self.up[-1].out_channels:
            raise ValueError(f"x: expected C = {self.up[-1].out_channels}, got shape {tuple(x.shape)}")
        # For an odd height or width, `up` returns one row or column more than x has.
        mask = self.up(self.down(x))[..., : x.shape[2], : x.shape[3]]
        return x + x * mask.sigmoid()


class QualityNetwork(nn.Module):
    """Quality scores of all body parts in all frames (STAL, section III-C), before the L1 normalization.

    Layers: 7x7 convolution, two 3x3 convolutions, 7x7 max pooling, a fully connected layer to R scores and a
    sigmoid. The strides of 2 and the numbers of channels are our choice. The pooling gives 4 x 4 cells for
    any input size; for 224 x 224 its windows are 7 x 7. Frames are scored independently, so T may differ
    between calls.

    Args:
        parts: R.
        width: channels after the first convolution; the next two have twice as many.

    Call: `layer(frames, valid=None)` with frames (B,T,3,h,w) and valid (B,T) bool returns (B,T,R) in
    [1e-6, 1]. Scores are never zero, so that every part has a weighted mean. Frames that `valid` excludes do
    not enter the batch statistics.
    """

    def __init__(self, parts: int = 6, width: int = 32) -> None:
        super().__init__()
        for name, value in (("parts", parts), ("width", width)):
            _checks.integer(name, value, 1)
        self.features = nn.Sequential(
            *_convolution(3, width, 7, 2),
            *_convolution(width, 2 * width, 3, 2),
            *_convolution(2 * width, 2 * width, 3, 2),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
        )
        self.fc = nn.Linear(2 * width * 16, parts)

    def forward(self, frames: Tensor, valid: Tensor | None = None) -> Tensor:
        _checks.floating("frames", frames, "(B,T,3,h,w)")
        _checks.mask("valid", valid, tuple(frames.shape[:2]), frames.device)
        if frames.shape[2] != 3:
            raise ValueError(f"frames: expected shape (B,T,3,h,w), got {tuple(frames.shape)}")
        scores: Tensor = self.fc(each_frame(self.features, frames, valid)).sigmoid().clamp(min=1e-6)
        return scores


class Parts(NamedTuple):
    """Result of `aggregate_parts`.

    Attributes:
        features: f (B,R,D), Eq. 9.
        scores: a-bar (B,R), the mean score of each part over the frames.
    """

    features: Tensor
    scores: Tensor


def normalise_scores(scores: Tensor, valid: Tensor | None = None) -> Tensor:
    """L1 normalization of a score map (B,T,R) over the valid frames and the parts of a clip.

    Eq. 8 and 9 use only ratios of the scores of a clip, so this normalization does not change their results.
    """
    _checks.floating("scores", scores, "(B,T,R)")
    _checks.mask("valid", valid, tuple(scores.shape[:2]), scores.device)
    scores = _masked(scores, valid)
    return scores / scores.sum((1, 2), keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


def aggregate_parts(features: Tensor, scores: Tensor, valid: Tensor | None = None) -> Parts:
    """Score-weighted mean of the part features over the frames of a clip (STAL, Eq. 9).

        f^r = sum_t a^{r,t} f^{r,t} / sum_t a^{r,t}          a-bar^r = mean_t a^{r,t}

    Args:
        features: f^{r,t} (B,T,R,D).
        scores: a^{r,t} (B,T,R), not negative.
        valid: (B,T) bool, the frames to include; None for all. Excluded frames may contain NaN.

    Returns:
        `Parts(features (B,R,D), scores (B,R))`, differentiable with respect to features and scores. A part
        with only zero scores gives the unweighted mean over the valid frames; a clip without a valid frame
        gives zeros.

    Raises:
        ValueError: an argument has the wrong type or value.
    """
    _checks.floating("features", features, "(B,T,R,D)")
    _checks.floating("scores", scores, "(B,T,R)")
    if scores.shape != features.shape[:3]:
        expected = tuple(features.shape[:3])
        raise ValueError(f"scores: expected shape (B,T,R) = {expected}, got {tuple(scores.shape)}")
    _checks.mask("valid", valid, tuple(features.shape[:2]), features.device)
    scores, features = _masked(scores, valid), _masked(features, valid)
    count = (
        scores.new_full((scores.shape[0], 1), scores.shape[1])
        if valid is None
        else valid.sum(1, keepdim=True)
    )
    total = scores.sum(1)
    uniform = _masked(torch.ones_like(scores), valid) / count.clamp(min=1)[..., None]
    nonzero = (total != 0)[:, None]
    weights = torch.where(nonzero, scores / torch.where(nonzero, total[:, None], 1), uniform)
    return Parts((weights[..., None] * features).sum(1), total / count.clamp(min=1))


def _masked(x: Tensor, valid: Tensor | None) -> Tensor:
    """x (B,T,...) with zeros in the frames that `valid` excludes."""
    return x if valid is None else x.masked_fill(~valid.view(*valid.shape, *[1] * (x.dim() - 2)), 0)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
