"""Pictures of what a model attends to: each system draws what its own `attend` returns."""

from functools import singledispatch
from pathlib import Path

from torch import Tensor, nn

from vreid_ext.data import Tracklet, read_clip, sample_clip
from vreid_ext.engine.build import transforms_of
from vreid_ext.engine.config import Recipe
from vreid_ext.models import ReceptiveFields
from vreid_ext.ops import STAPool
from vreid_ext.report.fields import plot_receptive_fields
from vreid_ext.report.plots import plot_attention, plot_clip


@singledispatch
def draw_attended(attended: object, frames: Tensor, path: Path, title: str) -> Path:
    """Draw what `model.attend(clips)` returned for one clip.

    A system whose `attend` returns a type of its own registers a drawing of it:

        @draw_attended.register
        def _(attended: MyAttended, frames: Tensor, path: Path, title: str) -> Path: ...

    Args:
        attended: of a batch of one clip.
        frames: (T,3,h,w) uint8, as they lie on the disk.
        path: the picture, ending in .png or .svg.

    Raises:
        TypeError: no drawing is registered for this type.
    """
    raise TypeError(f"attended: got {type(attended).__name__}, for which no drawing is registered")


@draw_attended.register
def _(attended: STAPool, frames: Tensor, path: Path, title: str) -> Path:
    return plot_attention(frames, attended, path, title=title)


@draw_attended.register
def _(attended: dict, frames: Tensor, path: Path, title: str) -> Path:
    """A map (1,T,H,W) of each stream of ASTA, from 0 to 1."""
    return plot_clip(frames, path, maps=attended, unit="attention", title=title)


@draw_attended.register
def _(attended: ReceptiveFields, frames: Tensor, path: Path, title: str) -> Path:
    return plot_receptive_fields(frames, attended.weights[0], path, title=title)


def picture_attention(
    model: nn.Module, recipe: Recipe, tracklet: Tracklet, path: Path, *, frames: int | None = None
) -> Path | None:
    """Draw a model's attention on one clip of a tracklet, frames evenly over it.

    Args:
        frames: T of the clip; the recipe's first test length unless given.

    Returns:
        The path, or None if there is nothing to draw: the model has no `attend`, or attends to nothing (an
        empty dict, or a ValueError), or no drawing is registered for what it returns.
    """
    attend = getattr(model, "attend", None)
    if attend is None:
        return None
    chosen = sample_clip(len(tracklet), frames or recipe.eval.frames[0], "evenly")
    clip = read_clip([tracklet.paths[index] for index in chosen.tolist()])
    _, transform = transforms_of(recipe.input)
    device = next(model.parameters()).device
    try:
        attended = attend(transform(clip)[None].to(device))
    except ValueError:
        return None
    if attended == {} or draw_attended.dispatch(type(attended)) is draw_attended.dispatch(object):
        return None
    return draw_attended(attended, clip, path, tracklet.name)
