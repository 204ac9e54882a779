"""Export of a trained model to a file that runs without this package: ONNX, torch.export or OpenVINO."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vreid_ext import backends
from vreid_ext._files import flush
from vreid_ext._lock import one_writer
from vreid_ext.data.clips.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize
from vreid_ext.data.pose.joints import JOINTS
from vreid_ext.engine.build import takes
from vreid_ext.engine.checkpoint import run_folder
from vreid_ext.engine.comparison import metric_of
from vreid_ext.engine.features import identity_of
from vreid_ext.engine.flip import Mirrored
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Recipe
from vreid_ext.engine.threshold import model_of_identity
from vreid_ext.runtimes import open_network
from vreid_ext.runtimes.with_openvino import core, save_network

FORMATS = {"onnx": "model.onnx", "torch": "model.pt2", "openvino": "model.xml"}
TOLERANCE = 1e-4
_METADATA = "vreid_ext.json"  # extra file of an exported program
_TRACED = (2, 3)  # numbers of clips and frames; torch.export specializes on the sizes 0 and 1
_CHECKED = (_TRACED, (1, 1), (3, 5))


class Deployed(nn.Module):
    """A model with normalization as its first layer.

    Input: clips (B,T,3,H,W) uint8 RGB with the size H x W of the recipe. If the model takes joints, also
    joints (B,T,14,3) as for `nn.part_boxes`; zeros select the fixed part positions of a standing person.
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
    format: Literal["onnx", "torch", "openvino"] = "onnx",
    overrides: Iterable[str] = (),
) -> dict[str, Any]:
    """Export the model of a checkpoint with dynamic numbers of clips and frames, and verify the file.

    The exported model has the inputs of `Deployed` and returns the features (B,D). All ops of this package
    are replaced by their reference in standard operators, so the file does not depend on this package. A
    torch.export file of a model with ROI pooling (STAL) requires torchvision to be imported.

    The metadata describe the input, the metric for comparing features and, for each test length of the
    recipe, what determines the features (`features`, as in `engine.threshold`). They are stored in
    `metadata_props["vreid_ext"]` of the ONNX model, in the extra file `vreid_ext.json` of the exported
    program, or in the runtime information `vreid_ext` of the OpenVINO network.

    Args:
        checkpoint, overrides: see `evaluate_checkpoint`.
        out: output file; default: `model.onnx`, `model.pt2` or `model.xml` in the run's folder.
        format: "onnx" (verified with onnxruntime), "torch" (verified with `torch.export.load`) or "openvino"
            (`.xml` with the weights in `.bin` beside it; verified with OpenVINO in float32).

    Returns:
        The metadata, with the additional keys `file` and `largest_difference`: the largest absolute
        difference from the original model's features, divided by the largest absolute feature, over inputs
        of several sizes.

    Raises:
        ValueError: unknown format, or another suffix of `out`.
        RuntimeError: `largest_difference` would be above 1e-4. No file is written.
    """
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    model, recipe, folder = open_checkpoint(checkpoint, overrides)
    file = Path(out) if out is not None else run_folder(folder) / FORMATS[format]
    suffix = Path(FORMATS[format]).suffix
    if file.suffix != suffix:
        raise ValueError(f"out: expected a file with the suffix {suffix}, got {str(file)!r}")
    with_joints = "joints" in takes(recipe.model)
    deployed = Deployed(Mirrored(model) if recipe.eval.flip else model, with_joints).eval()
    size = (recipe.input.height, recipe.input.width)
    cases = [_inputs(clips, frames, size, with_joints) for clips, frames in _CHECKED]
    with torch.no_grad():
        expected = [deployed(*case) for case in cases]
    about = _described(model, recipe, size, expected[0].shape[1], with_joints)
    with one_writer("out", file):
        difference = _write(deployed, cases, expected, file, format, about)
    return about | {"file": str(file), "largest_difference": difference}


def _described(
    model: nn.Module, recipe: Recipe, size: tuple[int, int], dimensions: int, with_joints: bool
) -> dict[str, Any]:
    """The metadata of an exported file."""
    metric = metric_of(model, recipe)
    about = {
        "recipe": recipe.name,
        "model": recipe.model["name"],
        "clips": f"uint8 RGB (clips, frames, 3, {size[0]}, {size[1]})",
        "dimensions": dimensions,
        "metric": "the model's `distance`" if callable(metric) else metric,
        "features": [
            model_of_identity(identity_of(model, recipe, frames, [])) for frames in recipe.eval.frames
        ],
    }
    if with_joints:
        about["joints"] = (
            "float32 (clips, frames, 14, 3): x and y as fractions of the frame's width and height, and "
            "confidence, of " + ", ".join(JOINTS)
        )
    return about


def open_export(
    file: Path, device: torch.device | None = None
) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    """Open a file written by `export_model`: a function (inputs of `Deployed`) -> (B,D), and its metadata.

    A torch.export file can execute code when it is opened; open only files from a trusted source.

    Args:
        file: an ONNX model, an OpenVINO network, or an exported program with the suffix `.pt2`.
        device: device of the inputs and the features; None: the CPU. Only an exported program runs on others.

    Raises:
        ValueError: the file is damaged, has no metadata of this package, or cannot run on the device.
    """
    device = torch.device("cpu") if device is None else device
    exported_program = file.suffix == Path(FORMATS["torch"]).suffix
    if not exported_program and device.type != "cpu":
        raise ValueError(f"device: expected 'cpu' for an ONNX or OpenVINO file, got {str(device)!r}")
    try:
        if exported_program:
            run, text = _open_torch(file, device)
        else:
            network = open_network(file)
            run, text = network.run, network.metadata
        about = json.loads(text or "{}")
    except ImportError:
        raise
    except Exception as error:  # damaged files raise many exception types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"source: expected a file of `vreid export`, got {str(file)!r}, which cannot be opened: {reason}"
        ) from error
    if not isinstance(about, dict) or not isinstance(about.get("features"), list):
        raise ValueError(
            f"source: expected a file of `vreid export` with its `features`, got {str(file)!r}; export it "
            "again"
        )
    return run, about


def _open_torch(file: Path, device: torch.device) -> tuple[Callable[..., Tensor], str]:
    import torchvision  # registers the operator of ROI pooling
    from torch.export.passes import move_to_device_pass

    assert torchvision.ops
    about = {_METADATA: ""}
    with file.open("rb") as stream:
        program = torch.export.load(stream, extra_files=about)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    return program.module(), about[_METADATA]


@contextmanager
def whole_network(file: Path) -> Iterator[Path]:
    """Yield a temporary path with the name of `file`; at the end of the block that file replaces `file`.

    Files that the block writes beside it, such as the `.bin` file of OpenVINO, are moved first. After an
    error nothing is changed.
    """
    with tempfile.TemporaryDirectory(prefix=f".{file.name}-incomplete-", dir=file.parent) as folder:
        temporary = Path(folder, file.name)
        yield temporary
        for written in sorted(Path(folder).iterdir(), key=lambda each: each == temporary):
            flush(written)
            written.replace(file.with_name(written.name))


def _write(
    deployed: Deployed,
    cases: list[tuple[Tensor, ...]],
    expected: list[Tensor],
    file: Path,
    format: str,
    about: dict[str, Any],
) -> float:
    """Write the file, run it on the cases, and return the largest relative difference from `expected`."""
    with whole_network(file) as temporary:
        run = _WRITERS[format](deployed, cases[0], temporary, about)
        with torch.no_grad():
            difference = max(
                float((run(*case) - feature).abs().max() / feature.abs().max())
                for case, feature in zip(cases, expected, strict=True)
            )
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"export: expected a relative difference from the checkpoint's features of at most "
                f"{TOLERANCE}, got {difference:.1e}; no file was written"
            )
    return difference


def _inputs(clips: int, frames: int, size: tuple[int, int], with_joints: bool) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (clips, frames, 3, *size), dtype=torch.uint8, generator=generator)
    return (
        (pixels, torch.rand(clips, frames, 14, 3, generator=generator, dtype=torch.float32))
        if with_joints
        else (pixels,)
    )


def _write_onnx(
    deployed: Deployed, case: tuple[Tensor, ...], file: Path, about: dict[str, Any]
) -> Callable[..., Tensor]:
    import torchvision  # registers the operators in custom_translation_table
    from onnxscript import opset18

    assert torchvision.ops

    def roi_pool(maps: Any, boxes: Any, scale: float, height: int, width: int) -> Any:
        pooled = opset18.MaxRoiPool(maps, boxes, pooled_shape=[height, width], spatial_scale=scale)
        return pooled, pooled  # torchvision's roi_pool also returns the argmax, which is unused here

    def adaptive_max_pool2d(maps: Any, cells: Sequence[int]) -> Any:
        # torch 2.11 neither translates nor decomposes this operator.
        op: Any = opset18  # Any, because its type hints do not include lists
        pooled, (_, _, *sides) = maps, maps.shape
        for axis, side, count in zip((2, 3), sides, cells, strict=True):
            bounds = [(cell * side // count, -(-(cell + 1) * side // count)) for cell in range(count)]
            windows = [op.Slice(pooled, [first], [end], [axis]) for first, end in bounds]
            pooled = op.Concat(*(op.ReduceMax(each, [axis]) for each in windows), axis=axis)
        return pooled, pooled  # the second output is the unused argmax, as above

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
    return open_network(file, "onnxruntime").run


def _write_openvino(
    deployed: Deployed, case: tuple[Tensor, ...], file: Path, about: dict[str, Any]
) -> Callable[..., Tensor]:
    opener = core()
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder, FORMATS["onnx"])
        _write_onnx(deployed, case, onnx, about)
        save_network(opener.read_model(onnx), file, about)
    return open_network(file).run


def _write_torch(
    deployed: Deployed, case: tuple[Tensor, ...], file: Path, about: dict[str, Any]
) -> Callable[..., Tensor]:
    with _plain(deployed):
        program = torch.export.export(deployed, case, dynamic_shapes=_dynamic(case))
    with file.open("wb") as stream:
        torch.export.save(program, stream, extra_files={_METADATA: json.dumps(about)})
    with file.open("rb") as stream:
        run: Callable[..., Tensor] = torch.export.load(stream).module()
    return run


_WRITERS = {"onnx": _write_onnx, "torch": _write_torch, "openvino": _write_openvino}


@contextmanager
def _plain(deployed: Deployed) -> Iterator[None]:
    """Context manager that selects the reference backend, also for modules with an explicit `backend`."""
    explicit = [(module, module.backend) for module in deployed.modules() if hasattr(module, "backend")]
    for module, _ in explicit:
        module.backend = "reference"  # type: ignore[assignment]
    try:
        with backends.use_backend("reference"), torch.no_grad():
            yield
    finally:
        for module, backend in explicit:
            module.backend = backend


def _dynamic(case: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("frames")}
    return (dims,) * len(case)
