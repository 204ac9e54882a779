"""Helpers for clips that all models use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vreid_ext.nn.frames import each_frame


def check_clips(clips: Tensor, valid: Tensor | None) -> None:
    """Check clips (B,T,3,h,w) and the mask of their frames (B,T)."""
    if clips.dim() != 5 or clips.shape[2] != 3:
        raise ValueError(f"clips: expected shape (B,T,3,h,w), got {tuple(clips.shape)}")
    if valid is not None and (valid.dtype != torch.bool or valid.shape != clips.shape[:2]):
        raise ValueError(
            f"valid: expected a bool tensor (B,T) = {tuple(clips.shape[:2])}, "
            f"got {valid.dtype} {tuple(valid.shape)}"
        )


def training_label(label: Tensor | None) -> Tensor:
    """The identities (B,) of a batch, for a model that requires them in training."""
    if label is None:
        raise ValueError("label: expected identities (B,) in training, got None")
    return label


def unmasked(valid: Tensor | None) -> None:
    """Refuse a mask in training, for a model whose losses count every frame."""
    if valid is not None:
        raise ValueError("valid: expected None in training, got a mask")


def frame_maps(backbone: nn.Module, clips: Tensor, valid: Tensor | None = None) -> Tensor:
    """Feature maps (B,T,C,H,W) of the frames of clips (B,T,3,h,w). The backbone's memory format is kept.

    In training, the maps of frames masked out by `valid` are zero (see `nn.frames.each_frame`).

    Raises:
        ValueError: clips, the mask `valid` (B,T) or the backbone's output have the wrong shape.
    """
    check_clips(clips, valid)
    maps = each_frame(backbone, clips, valid)
    if maps.dim() != 5:
        raise ValueError(
            f"backbone: expected an output of shape (N,C,H,W), got {tuple(maps.flatten(0, 1).shape)}"
        )
    return maps


def by_length(run: Callable[[Tensor], Tensor], clips: Tensor, valid: Tensor | None) -> Tensor:
    """Features (B,D) of clips (B,T,...), for a function `run` of whole clips.

    Clips are cut to their valid frames, which come first, and run in groups of equal length.
    """
    if valid is None:
        return run(clips.contiguous())
    counts = valid.sum(1)
    rows: Tensor | None = None
    for count in counts.unique().tolist():
        chosen = counts == count
        feature = run(clips[chosen][:, :count].contiguous())
        rows = feature.new_empty(len(clips), feature.shape[1]) if rows is None else rows
        rows[chosen] = feature
    assert rows is not None
    return rows


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Switch the model to evaluation mode and restore the mode of every submodule on exit.

    Frozen submodules may be in evaluation mode while the model trains, so `model.train()` is not enough.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
