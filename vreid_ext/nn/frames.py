"""A module of single frames, applied to clips."""

from typing import cast

from torch import Tensor, nn


def each_frame(module: nn.Module, x: Tensor, valid: Tensor | None = None) -> Tensor:
    """What `module` gives for every frame of clips.

    In training, frames left out by `valid` do not pass through the module, so that its batch statistics are
    those of the frames that count; their results are zeros. How many there are is read from the device.

    Args:
        module: (N,...) to (N,...).
        x: (B,T,...).
        valid: (B,T) bool, the frames that count; None for all.

    Returns:
        (B,T,...).

    Raises:
        ValueError: in training, no frame counts.
    """
    frames = x.flatten(0, 1)
    if valid is None or not module.training:
        return cast(Tensor, module(frames)).unflatten(0, x.shape[:2])
    place = valid.flatten().nonzero()[:, 0]
    if not place.shape[0]:
        raise ValueError("valid: expected at least one frame that counts, got none")
    seen = module(frames[place])
    results = seen.new_zeros((frames.shape[0], *seen.shape[1:])).index_copy(0, place, seen)
    return cast(Tensor, results.unflatten(0, x.shape[:2]))


def mean_over_frames(x: Tensor, valid: Tensor | None) -> Tensor:
    """(B,T,...) to (B,...); frames that `valid` (B,T) leaves out are not read, and
    a clip without any gives zeros.
    """
    if valid is None:
        return x.mean(1)
    beyond = (1,) * (x.dim() - 2)
    count = valid.sum(1).clamp(min=1).view(-1, *beyond)
    return x.masked_fill(~valid.view(*valid.shape, *beyond), 0).sum(1) / count
