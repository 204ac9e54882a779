"""Attribute-driven spatio-temporal attention."""

import torch
from torch import Tensor, nn

from vreid_ext import _checks
from vreid_ext.nn.frames import each_frame


class SpatioTemporalAttention(nn.Module):
    """Attention weights for all cells and frames of a clip (Chen et al., 2020, Section 4.2 and Fig. 5).

    A 1x1 convolution with BN and ReLU and a 3x3 convolution reduce the map of each frame to one channel. Its
    H W cells are then the channels of a convolution over time, followed by a sigmoid.

    For the temporal convolution the paper states kernel 3, padding 2 and an output of the same length as the
    input. This is inconsistent. Padding 1 (as in the authors' code) keeps the T frames. The 1x1 convolution
    is the paper's "additional size-preserving convolutional layer"; the paper does not state its width.

    Args:
        channels: C of the maps.
        size: (H, W) of the maps. The paper's 128 channels over time are 16 x 8.
        width: channels between the two convolutions; default C / 8 (C in the authors' code).
        start: initialization. "torch" is the default of torch's layers, with initial attention near 0.5.
            "kaiming" is the normal initialization with gain sqrt(2) and biases of zero (as in the authors'
            code), with initial attention spread over 0.5 +- 0.26.
        detach: detach the maps from which the attention is computed (as in the authors' code). The backbone
            then receives gradients only through the maps that are multiplied by the attention.

    Call: `attention(maps, valid=None)` with maps (B,T,C,H,W) and valid (B,T) bool returns weights (B,T,H,W)
    in [0, 1]. A frame that `valid` excludes has weight zero and enters the temporal convolution as zeros.

    Raises:
        ValueError: the maps have another size than `size`.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        width: int | None = None,
        start: str = "torch",
        detach: bool = True,
    ) -> None:
        super().__init__()
        _checks.integer("channels", channels, 1)
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise TypeError(f"size: expected a pair (H,W), got {size!r}")
        for side in size:
            _checks.integer("size", side, 1)
        if width is not None:
            _checks.integer("width", width, 1)
        self.size, self.detach = tuple(size), detach
        width = width or max(1, channels // 8)
        cells = size[0] * size[1]
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 1, 3, padding=1),
        )
        self.temporal = nn.Conv1d(cells, cells, 3, padding=1)
        initialise(self, start)

    def forward(self, maps: Tensor, valid: Tensor | None = None) -> Tensor:
        _checks.floating("maps", maps, "(B,T,C,H,W)")
        _checks.mask("valid", valid, tuple(maps.shape[:2]), maps.device)
        b, t, _, h, w = maps.shape
        if (h, w) != self.size:
            raise ValueError(
                f"maps: expected {self.size[0]} x {self.size[1]} cells, the size given at construction, "
                f"got {h} x {w}"
            )
        spatial = each_frame(self.reduce, maps.detach() if self.detach else maps, valid).view(b, t, h * w)
        if valid is not None:
            spatial = spatial.masked_fill(~valid[:, :, None], 0)
        attention = self.temporal(spatial.transpose(1, 2)).transpose(1, 2).sigmoid()
        if valid is not None:
            attention = attention.masked_fill(~valid[:, :, None], 0)
        return attention.reshape(b, t, h, w)


def spatio_temporal_pool(
    maps: Tensor, attention: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """Mean (B,C) of maps (B,T,C,H,W) over cells and valid frames, weighted by the attention (B,T,H,W)."""
    _checks.floating("maps", maps, "(B,T,C,H,W)")
    if attention is not None:
        _checks.floating("attention", attention, "(B,T,H,W)")
        if attention.shape != (*maps.shape[:2], *maps.shape[3:]):
            expected = (*maps.shape[:2], *maps.shape[3:])
            raise ValueError(
                f"attention: expected shape (B,T,H,W) = {expected} of maps, got {tuple(attention.shape)}"
            )
    _checks.mask("valid", valid, tuple(maps.shape[:2]), maps.device)
    frames = maps.mean((3, 4)) if attention is None else torch.einsum("btchw,bthw->btc", maps, attention)
    if attention is not None:
        frames = frames / (maps.shape[3] * maps.shape[4])
    if valid is None:
        return frames.mean(1)
    return frames.masked_fill(~valid[:, :, None], 0).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)


def initialise(module: nn.Module, start: str) -> None:
    """Initialize the convolutions of a module by "torch" or "kaiming" (see `SpatioTemporalAttention`)."""
    _checks.choice("start", start, ("torch", "kaiming"))
    for layer in module.modules():
        if start == "kaiming" and isinstance(layer, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
