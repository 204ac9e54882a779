"""The model of an `Embedder`, from a run, a checkpoint or an exported file, behind one function."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vreid_ext.data.clips.transforms import ClipTransform, Resize
from vreid_ext.data.pose.joints import JOINTS
from vreid_ext.distributed import default_device
from vreid_ext.engine.build import transforms_of
from vreid_ext.engine.checkpoint import run_folder
from vreid_ext.engine.comparison import metric_of
from vreid_ext.engine.export import FORMATS, open_export
from vreid_ext.engine.features import identity_of
from vreid_ext.engine.flip import Mirrored
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.threshold import model_of_identity
from vreid_ext.features.rows import DistanceFunction
from vreid_ext.models.clips import by_length
from vreid_ext.runtimes import is_network, open_network
from vreid_ext.weights.locate import located_system

SAMPLINGS = ("evenly", "first_of_chunk", "dense")
_CHUNK = 32  # clips per forward pass of an exported file


class Encoder(NamedTuple):
    """A model and how `vreid extract` uses it.

    Attributes:
        forward: (clips (B,T,3,H,W), valid (B,T) | None) -> (B,D). Clips are outputs of `transform`.
        transform: (T,3,h,w) uint8 -> (T,3,H,W).
        size: (H, W).
        frames: T.
        sampling: one of `SAMPLINGS`.
        chunk: largest number of clips of a forward pass.
        metric: name of a metric, or the model's own distance function; None: an export has no such function.
        identity: returns what determines the features (`model_of_identity`).
        device: where the model runs.
        folders: where a threshold may be.
    """

    forward: Callable[[Tensor, Tensor | None], Tensor]
    transform: ClipTransform
    size: tuple[int, int]
    frames: int
    sampling: str
    chunk: int
    metric: str | DistanceFunction | None
    identity: Callable[[], dict[str, Any]]
    device: torch.device
    folders: tuple[Path, ...]


def open_encoder(source: Path, device: torch.device | str | None, overrides: Iterable[str]) -> Encoder:
    """Open a run, a checkpoint, a pretrained folder or its address, or an exported or other network file.

    Raises:
        ValueError: there is no model, the device does not exist, or the model has several test lengths or
            draws random test frames.
    """
    overrides = list(overrides)
    source = located_system(source)
    if not source.exists():
        raise ValueError(
            f"source: expected a run, a checkpoint or an exported file, got no such {str(source)!r}"
        )
    chosen = _device(device)
    if source.is_dir() or (is_network(source) and not open_network(source).metadata):
        return _of_checkpoint(source, chosen, overrides)
    suffixes = [Path(name).suffix for name in FORMATS.values()]
    if source.suffix not in suffixes:
        raise ValueError(
            f"source: expected the folder of a run or a checkpoint, or a file {' or '.join(suffixes)}, got "
            f"{str(source)!r}"
        )
    if overrides:
        raise ValueError(f"overrides: expected none for an exported file, got {overrides[0]!r}")
    # These run on the CPU, so by default that is their device.
    on_cpu = device is None and is_network(source)
    return _of_export(source, torch.device("cpu") if on_cpu else chosen)


def _of_checkpoint(source: Path, device: torch.device, overrides: list[str]) -> Encoder:
    model, recipe, folder = open_checkpoint(source, overrides)
    frames = _one_length(recipe.eval.frames, recipe.eval.sampling)
    model.to(device)
    size = (recipe.input.height, recipe.input.width)
    forward = Mirrored(model) if recipe.eval.flip else model
    return Encoder(
        forward, transforms_of(recipe.input)[1], size, frames, recipe.eval.sampling, recipe.eval.chunk,
        metric_of(model, recipe), lambda: model_of_identity(identity_of(model, recipe, frames, [])),
        device, tuple({folder, run_folder(folder)}),
    )  # fmt: skip


def _of_export(source: Path, device: torch.device) -> Encoder:
    run, about = open_export(source, device)
    try:
        lengths = [each["eval.frames"] for each in about["features"]]
        identity, metric = about["features"][0], about["metric"]
        sampling, size = identity["eval.sampling"], (identity["input.height"], identity["input.width"])
    except (LookupError, TypeError) as error:
        raise ValueError(f"source: {str(source)!r} has damaged metadata: {error!r}") from error
    frames = _one_length(lengths, sampling)
    return Encoder(
        _Exported(run, with_joints="joints" in about), ClipTransform([Resize(size)], size), size, frames,
        sampling, _CHUNK, metric if metric in ("cosine", "euclidean") else None, lambda: identity, device,
        (source.parent,),
    )  # fmt: skip


class _Exported:
    """An exported model with the mask `valid` of a model: clips are cut to their valid frames."""

    def __init__(self, run: Callable[..., Tensor], with_joints: bool) -> None:
        self.run, self.with_joints = run, with_joints

    def __call__(self, clips: Tensor, valid: Tensor | None = None) -> Tensor:
        return by_length(self._run, clips, valid)

    def _run(self, clips: Tensor) -> Tensor:
        if not self.with_joints:
            return self.run(clips)
        return self.run(clips, clips.new_zeros(*clips.shape[:2], len(JOINTS), 3, dtype=torch.float32))


def _one_length(lengths: list[int], sampling: str) -> int:
    if len(lengths) != 1:
        raise ValueError(
            f"eval.frames: expected one clip length, got {lengths}; use the override "
            f"eval.frames=[{lengths[0]}]"
        )
    if sampling not in SAMPLINGS:
        raise ValueError(
            f"eval.sampling: expected one of {', '.join(SAMPLINGS)}, which draw no random frames, got "
            f"{sampling!r}; use the override eval.sampling=evenly"
        )
    return lengths[0]


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return default_device()
    try:
        chosen = torch.device(device)
        torch.empty(0, dtype=torch.float32, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device: expected a device of this machine, got {str(device)!r}: {str(error).splitlines()[0]}"
        ) from error
    return chosen
