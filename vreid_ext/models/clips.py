"""What the models share in handling clips."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vreid_ext.nn.frames import each_frame


def frame_maps(backbone: nn.Module, clips: Tensor, valid: Tensor | None = None) -> Tensor:
    """Feature maps (B,T,C,H,W) of every frame of clips (B,T,3,h,w), in the memory layout the backbone gives.

    In training, frames left out by `valid` have maps of zeros (`nn.frames.each_frame`).

    Raises:
        ValueError: clips, the mask `valid` (B,T) or the backbone's maps have another shape.
    """
    if clips.dim() != 5 or clips.shape[2] != 3:
        raise ValueError(f"clips: expected shape (B,T,3,h,w), got {tuple(clips.shape)}")
    if valid is not None and (valid.dtype != torch.bool or valid.shape != clips.shape[:2]):
        got, wanted = (valid.dtype, tuple(valid.shape)), tuple(clips.shape[:2])
        raise ValueError(f"valid: expected a bool tensor (B,T) = {wanted}, got {got[0]} {got[1]}")
    maps = each_frame(backbone, clips, valid)
    if maps.dim() != 5:
        raise ValueError(
            f"backbone: expected it to give maps (N,C,H,W), got shape {tuple(maps.flatten(0, 1).shape)}"
        )
    return maps


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards every module is in the mode it was in, frozen ones too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
