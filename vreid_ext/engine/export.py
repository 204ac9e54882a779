"""A trained model as one file that runs without this package: ONNX, or torch's exported program."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vreid_ext import backends
from vreid_ext._files import whole_file
from vreid_ext._lock import one_writer
from vreid_ext.data.clips.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize
from vreid_ext.data.pose.joints import JOINTS
from vreid_ext.engine.build import takes
from vreid_ext.engine.comparison import metric_of
from vreid_ext.engine.open import open_checkpoint

FORMATS = {"onnx": "model.onnx", "torch": "model.pt2"}
TOLERANCE = 1e-4
_TRACED = (2, 3)  # clips and frames; neither is 0 or 1, which an export takes for a constant
_CHECKED = (_TRACED, (1, 1), (3, 5))


class Deployed(nn.Module):
    """The model from frames as they are stored: clips (B,T,3,H,W) uint8 RGB, H x W being the input's size.

    A model that takes joints gets (B,T,14,3) as `nn.part_boxes` takes them; zeros stand for standing
    proportions.
    """

    def __init__(self, model: nn.Module, with_joints: bool) -> None:
        super().__init__()
        self.model, self.with_joints = model, with_joints
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)

    def forward(self, clips: Tensor, joints: Tensor | None = None) -> Tensor:
        extras = {"joints": joints} if self.with_joints else {}
        feature: Tensor = self.model(self.normalize(clips), **extras)
        return feature


def export_model(
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    format: Literal["onnx", "torch"] = "onnx",
    overrides: Iterable[str] = (),
) -> dict[str, Any]:
    """Write a checkpoint's model with dynamic numbers of clips and frames, and check it against the model.

    The file takes what `Deployed` takes and gives the feature (B,D) of a clip. Every op of this package is
    written as the standard operators of its reference, so neither file needs the package; the exported
    program of a model with ROI pooling (STAL) needs torchvision to be imported. What the input is and how
    features compare is in the metadata: `metadata_props["vreid_ext"]` of the ONNX model, the extra file
    `vreid_ext.json` of the exported program.

    Args:
        checkpoint, overrides: as for `evaluate_checkpoint`.
        out: the file; `model.onnx` or `model.pt2` in the run unless given.
        format: "onnx", run by onnxruntime for the check, or "torch", loaded by `torch.export.load`.

    Returns:
        The metadata, with `file` and `largest_difference` from the model, over clips of several sizes, as a
        share of the largest feature.

    Raises:
        ValueError: another format.
        RuntimeError: the file's features differ by more than 1e-4 of the largest; nothing is written then.
    """
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    model, recipe, folder = open_checkpoint(checkpoint, overrides)
    file = Path(out) if out is not None else folder.parent.parent / FORMATS[format]
    with_joints = "joints" in takes(recipe.model)
    deployed = Deployed(model, with_joints).eval()
    size = (recipe.input.height, recipe.input.width)
    cases = [_inputs(clips, frames, size, with_joints) for clips, frames in _CHECKED]
    with torch.no_grad():
        wanted = [deployed(*case) for case in cases]

    metric = metric_of(model, recipe)
    about = {
        "recipe": recipe.name,
        "model": recipe.model["name"],
        "clips": f"uint8 RGB (clips, frames, 3, {size[0]}, {size[1]})",
        "dimensions": wanted[0].shape[1],
        "metric": "the model's `distance`" if callable(metric) else metric,
    }
    if with_joints:
        about["joints"] = (
            "float32 (clips, frames, 14, 3): x and y as shares of the frame, and confidence, of "
            + ", ".join(JOINTS)
        )
    with one_writer("out", file):
        difference = _write(deployed, cases, wanted, file, format, about)
    return about | {"file": str(file), "largest_difference": difference}


def _write(
    deployed: Deployed,
    cases: list[tuple[Tensor, ...]],
    wanted: list[Tensor],
    file: Path,
    format: str,
    about: dict[str, Any],
) -> float:
    """Write the file, run it on the cases, and return how far from `wanted` its features are at most."""
    with whole_file(file) as temporary:
        run = (_write_onnx if format == "onnx" else _write_torch)(deployed, cases[0], temporary, about)
        with torch.no_grad():
            difference = max(
                float((run(*case) - feature).abs().max() / feature.abs().max())
                for case, feature in zip(cases, wanted, strict=True)
            )
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"expected features within {TOLERANCE} of the checkpoint's, got a difference of "
                f"{difference:.1e} of the largest feature; nothing is written"
            )
    return difference


def _inputs(clips: int, frames: int, size: tuple[int, int], with_joints: bool) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (clips, frames, 3, *size), dtype=torch.uint8, generator=draw)
    return (
        (pixels, torch.rand(clips, frames, 14, 3, generator=draw, dtype=torch.float32))
        if with_joints
        else (pixels,)
    )


def _write_onnx(
    deployed: Deployed, case: tuple[Tensor, ...], file: Path, about: dict[str, Any]
) -> Callable[..., Tensor]:
    import onnxruntime
    import torchvision  # registers the operators that the table names
    from onnxscript import opset18

    assert torchvision.ops

    def roi_pool(maps: Any, boxes: Any, scale: float, height: int, width: int) -> Any:
        pooled = opset18.MaxRoiPool(maps, boxes, pooled_shape=[height, width], spatial_scale=scale)
        return pooled, pooled  # in the second's place the operator has the cells of the maxima; nobody asks

    def adaptive_max_pool2d(maps: Any, cells: Sequence[int]) -> Any:
        # torch 2.11 neither translates nor decomposes it.
        op: Any = opset18  # its signatures lack the lists that it takes
        pooled, (_, _, *sides) = maps, maps.shape
        for axis, side, count in zip((2, 3), sides, cells, strict=True):
            bounds = [(cell * side // count, -(-(cell + 1) * side // count)) for cell in range(count)]
            windows = [op.Slice(pooled, [first], [end], [axis]) for first, end in bounds]
            pooled = op.Concat(*(op.ReduceMax(each, [axis]) for each in windows), axis=axis)
        return pooled, pooled  # as above

    with _plain(deployed):
        program = torch.onnx.export(
            deployed,
            case,
            dynamo=True,
            verbose=False,
            opset_version=18,
            input_names=["clips", "joints"][: len(case)],
            output_names=["feature"],
            dynamic_shapes=_dynamic(case),
            custom_translation_table={
                torch.ops.torchvision.roi_pool.default: roi_pool,
                torch.ops.aten.adaptive_max_pool2d.default: adaptive_max_pool2d,
            },
        )
    assert program is not None
    program.model.metadata_props["vreid_ext"] = json.dumps(about)
    program.save(file)
    session = onnxruntime.InferenceSession(file)

    def run(*inputs: Tensor) -> Tensor:
        given = {node.name: value.numpy() for node, value in zip(session.get_inputs(), inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def _write_torch(
    deployed: Deployed, case: tuple[Tensor, ...], file: Path, about: dict[str, Any]
) -> Callable[..., Tensor]:
    with _plain(deployed):
        program = torch.export.export(deployed, case, dynamic_shapes=_dynamic(case))
    with file.open("wb") as stream:
        torch.export.save(program, stream, extra_files={"vreid_ext.json": json.dumps(about)})
    with file.open("rb") as stream:
        run: Callable[..., Tensor] = torch.export.load(stream).module()
    return run


@contextmanager
def _plain(deployed: Deployed) -> Iterator[None]:
    """Every op of the package as the plain torch of its reference, also where a recipe named a backend."""
    named = [(module, module.backend) for module in deployed.modules() if hasattr(module, "backend")]
    for module, _ in named:
        module.backend = "reference"  # type: ignore[assignment]
    try:
        with backends.use_backend("reference"), torch.no_grad():
            yield
    finally:
        for module, backend in named:
            module.backend = backend


def _dynamic(case: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("frames")}
    return (dims,) * len(case)
