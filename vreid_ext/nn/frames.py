"""Applies per-frame modules to clips."""

from typing import cast

from torch import Tensor, nn


def each_frame(module: nn.Module, x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Apply `module` to all frames of clips.

    In training mode, frames that `valid` excludes do not pass through the module, so its batch statistics are
    those of the valid frames. The results of excluded frames are zeros. This requires one device
    synchronization to get the number of valid frames.

    Args:
        module: (N,...) to (N,...).
        x: (B,T,...).
        valid: (B,T) bool, the frames to include; None for all.

    Returns:
        (B,T,...).

    Raises:
        ValueError: no valid frame in training mode.
    """
    frames = x.flatten(0, 1)
    if valid is None or not module.training:
        return cast(Tensor, module(frames)).unflatten(0, x.shape[:2])
    place = valid.flatten().nonzero()[:, 0]
    if not place.shape[0]:
        raise ValueError("valid: expected at least one valid frame, got none")
    computed = module(frames[place])
    results = computed.new_zeros((frames.shape[0], *computed.shape[1:])).index_copy(0, place, computed)
    return cast(Tensor, results.unflatten(0, x.shape[:2]))


def mean_over_frames(x: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of (B,T,...) over the valid frames; zeros for a clip without a valid frame."""
    if valid is None:
        return x.mean(1)
    ones = (1,) * (x.dim() - 2)
    count = valid.sum(1).clamp(min=1).view(-1, *ones)
    return x.masked_fill(~valid.view(*valid.shape, *ones), 0).sum(1) / count
