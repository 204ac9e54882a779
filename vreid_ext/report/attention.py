"""Pictures of the attention of a model: one drawing function per type that `model.attend` returns."""

from functools import singledispatch
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vreid_ext.data import ClipDataset, Corruption, Tracklet
from vreid_ext.engine.build import black_box_of, transforms_of
from vreid_ext.engine.recipe import Recipe
from vreid_ext.models import PartScores, ReceptiveFields
from vreid_ext.nn import ConsensusPool
from vreid_ext.ops import STAPool
from vreid_ext.report.clips import plot_attention, plot_clip, plot_parts
from vreid_ext.report.fields import plot_receptive_fields


@singledispatch
def draw_attended(attended: object, frames: Tensor, path: Path, title: str) -> Path:
    """Draw the result of `model.attend(clips)` for one clip.

    If the `attend` of a model returns a new type, register a drawing function for it:

        @draw_attended.register
        def _(attended: MyAttended, frames: Tensor, path: Path, title: str) -> Path: ...

    Args:
        attended: result of `attend` for a batch of one clip.
        frames: (T,3,h,w) uint8, the frames of the clip before any transform.
        path: file of the picture, ending in .png or .svg.
        title: title of the picture.

    Raises:
        TypeError: no drawing function is registered for this type.
    """
    raise TypeError(f"attended: expected a type with a registered drawing, got {type(attended).__name__}")


@draw_attended.register
def _(attended: STAPool, frames: Tensor, path: Path, title: str) -> Path:
    return plot_attention(frames, attended, path, title=title)


@draw_attended.register
def _(attended: ConsensusPool, frames: Tensor, path: Path, title: str) -> Path:
    return plot_clip(
        frames,
        path,
        maps={"weight": attended.scores[0, :, :, None]},  # (T,K,1), constant in each row block
        unit="weight of a block",
        scores=attended.scores,
        columns="block k, top to bottom",
        title=title,
    )


@draw_attended.register(dict)
def _(attended: dict[str, Tensor], frames: Tensor, path: Path, title: str) -> Path:
    """Draw the attention maps of ASTA: stream -> (1,T,H,W) with values from 0 to 1."""
    return plot_clip(frames, path, maps=attended, unit="attention", title=title)


@draw_attended.register
def _(attended: ReceptiveFields, frames: Tensor, path: Path, title: str) -> Path:
    return plot_receptive_fields(frames, attended.weights[0], path, title=title)


@draw_attended.register
def _(attended: PartScores, frames: Tensor, path: Path, title: str) -> Path:
    # No joints: with a confidence of zero for all joints, `plot_parts` draws the boxes of a standing person.
    joints = frames.new_zeros(len(frames), 14, 3).float() if attended.joints is None else attended.joints[0]
    return plot_parts(frames, joints.cpu(), path, scores=attended.scores[0], title=title)


def picture_attention(
    model: nn.Module,
    recipe: Recipe,
    tracklet: Tracklet,
    path: Path,
    *,
    frames: int | None = None,
    corruption: Corruption | None = None,
) -> Path | None:
    """Draw the attention of a model on one clip, whose frames are evenly spaced in the tracklet.

    `model.attend` is called with the clip. Its other parameters, such as joints, are taken by name from the
    `ClipDataset` item.

    Args:
        frames: T of the clip; default: the first test length of the recipe.
        corruption: corrupts some frames.

    Returns:
        The path; or None if the model has no `attend`, if `attend` returns None or an empty dict, or if no
        drawing function is registered for the returned type.
    """
    attend = getattr(model, "attend", None)
    if attend is None:
        return None
    count = frames or recipe.eval.frames[0]
    shown: Any = {"black_box": black_box_of(recipe.dataset), "corruption": corruption}
    _, transform = transforms_of(recipe.input)
    clip = ClipDataset([tracklet], count, "evenly", **shown)[0]["clip"]
    item = ClipDataset([tracklet], count, "evenly", transform, **shown)[0]
    device = next(model.parameters()).device
    extras = {name: item[name][None].to(device) for name in signature(attend).parameters if name in item}
    attended = attend(item["clip"][None].to(device), **extras)
    if attended == {} or draw_attended.dispatch(type(attended)) is draw_attended.dispatch(object):
        return None
    return draw_attended(attended, clip, path, tracklet.name)
