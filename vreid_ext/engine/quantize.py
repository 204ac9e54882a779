"""Export to INT8 by the quantizer of the runtime, with the loss in mAP and the gain in speed measured."""

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vreid_ext import _checks, metrics
from vreid_ext._lock import one_writer
from vreid_ext.data import Tracklet, TrackletDataset
from vreid_ext.data.clips.dataset import ClipDataset
from vreid_ext.data.clips.transforms import ClipTransform, Resize
from vreid_ext.engine.build import one_dataset_of, takes
from vreid_ext.engine.checkpoint import run_folder
from vreid_ext.engine.evaluate import evaluate_model
from vreid_ext.engine.export import export_model, open_export, whole_network
from vreid_ext.engine.network import Network
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Recipe
from vreid_ext.runtimes.with_openvino import core, save_network

FILES = {"onnx": "model_int8.onnx", "openvino": "model_int8.xml"}
_ROUNDS = 5  # of the timing
_QUANTIZED = ("Conv", "MatMul", "Gemm")  # operators of ONNX


def export_int8(
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    format: Literal["onnx", "openvino"] = "onnx",
    calibration: int = 64,
    max_loss: float | None = None,
    overrides: Iterable[str] = (),
) -> dict[str, Any]:
    """Export the model of a checkpoint in INT8, and measure what that costs.

    The exported float32 file is quantized by the runtime's own quantizer: static quantization of
    `onnxruntime.quantization` (QDQ, weights per channel) or `nncf.quantize` for OpenVINO. Both are calibrated
    with clips of training tracklets of the recipe's data set. Then the checkpoint and the INT8 file are
    evaluated on query and gallery, and the float32 file and the INT8 file are timed in alternating rounds.

    Args:
        checkpoint, overrides: see `evaluate_checkpoint`.
        out: output file; default: `model_int8.onnx` or `model_int8.xml` in the run's folder.
        format: "onnx" or "openvino".
        calibration: number of clips for the calibration, one of each tracklet.
        max_loss: largest loss of mAP permitted, in percentage points; None: any.

    Returns:
        The metadata of the file, with the additional keys `file` and `int8`, a dict with

            calibration                 number of clips
            mAP, mAP_float32            fractions, for the first test length
            loss                        mAP_float32 - mAP with its interval over persons: value, low, high
            queries, persons            that the interval is computed from
            frames_per_second, frames_per_second_float32, speedup
            bytes, bytes_float32        sizes of the files

    Raises:
        ImportError: the runtime or its quantizer is not installed.
        RuntimeError: the loss is above `max_loss`. No file is written.
        ValueError: an argument is out of range; or the model has its own distance function or takes joints;
            or the data set has no training tracklets or no query with a match.
    """
    _checks.choice("format", format, tuple(FILES))
    calibration = _checks.integer("calibration", calibration, 1)
    limit = None if max_loss is None else _checks.real("max_loss", max_loss, 0, 100)
    overrides = list(overrides)
    model, recipe, folder = open_checkpoint(checkpoint, overrides)
    if callable(getattr(model, "distance", None)) or takes(recipe.model):
        raise ValueError(
            f"checkpoint: expected a model of frames alone with a metric, got {recipe.model['name']!r}, "
            "which takes joints or has its own distance function"
        )
    file = Path(out) if out is not None else run_folder(folder) / FILES[format]
    if file.suffix != Path(FILES[format]).suffix:
        raise ValueError(
            f"out: expected a file with the suffix {Path(FILES[format]).suffix}, got {str(file)!r}"
        )
    dataset = one_dataset_of(recipe)
    if not dataset.train:
        raise ValueError(
            f"dataset: expected training tracklets for the calibration, got none in {dataset.name}"
        )
    clips = calibration_clips(dataset.train, recipe, calibration)
    with (
        one_writer("out", file),
        tempfile.TemporaryDirectory() as temporary,
        whole_network(file) as quantized,
    ):
        plain = Path(temporary, file.name)
        about = export_model(checkpoint, plain, format=format, overrides=overrides)
        del about["file"], about["largest_difference"]
        # Features of the INT8 file are not those of the checkpoint, so they have another identity.
        about["features"] = [each | {"precision": "int8"} for each in about["features"]]
        (quantize_onnx if format == "onnx" else quantize_openvino)(plain, quantized, clips, about)
        measured = _loss(model, quantized, dataset, recipe)
        if limit is not None and 100 * measured["loss"]["value"] > limit:
            raise RuntimeError(
                f"max_loss: expected a loss of at most {limit} points of mAP, got "
                f"{100 * measured['loss']['value']:.2f} ({100 * measured['mAP_float32']:.2f} to "
                f"{100 * measured['mAP']:.2f}); no file was written"
            )
        runs = {name: open_export(path)[0] for name, path in (("float32", plain), ("int8", quantized))}
        rates = frames_per_second(runs, clips[: min(8, len(clips))])
        sizes = {"bytes": _size(quantized), "bytes_float32": _size(plain)}
    result = {
        "calibration": len(clips),
        **measured,
        "frames_per_second": rates["int8"],
        "frames_per_second_float32": rates["float32"],
        "speedup": rates["int8"] / rates["float32"],
        **sizes,
    }
    return about | {"file": str(file), "int8": result}


def calibration_clips(tracklets: Sequence[Tracklet], recipe: Recipe, count: int) -> Tensor:
    """Clips (n,T,3,H,W) uint8 of n tracklets, spread evenly over the list."""
    count = min(count, len(tracklets))
    chosen = [tracklets[index * len(tracklets) // count] for index in range(count)]
    size = (recipe.input.height, recipe.input.width)
    frames = recipe.eval.frames[0]
    data = ClipDataset(chosen, frames, "evenly", ClipTransform([Resize(size)], size))
    return torch.stack([data[number]["clip"] for number in range(count)])


def frames_per_second(runs: dict[str, Callable[..., Tensor]], clips: Tensor) -> dict[str, float]:
    """Median rate of each function on clips (B,T,3,H,W), in rounds that call one after the other."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(-1, _ROUNDS):  # the first round is a warm-up
        for name, run in runs.items():
            start = perf_counter()
            run(clips)
            if round_ >= 0:
                times[name].append(perf_counter() - start)
    frames = clips.shape[0] * clips.shape[1]
    return {name: frames / median(each) for name, each in times.items()}


def _loss(model: nn.Module, quantized: Path, dataset: TrackletDataset, recipe: Recipe) -> dict[str, Any]:
    """mAP of the model and of the file, and the difference with its interval."""
    rows = [
        evaluate_model(each, dataset, recipe)["rows"][0]
        for each in (model, Network(1, weights=quantized).eval())
    ]
    figures = [
        each | {"ap": [torch.nan if ap is None else ap for ap in each["ap"]]}
        for each in (row["per_query"] for row in rows)
    ]
    compared = metrics.compare(figures[1], figures[0], figures[0]["pid"], ranks=[1])
    return {
        "mAP": rows[1]["mAP"],
        "mAP_float32": rows[0]["mAP"],
        "loss": compared.difference["mAP"]._asdict(),
        "queries": compared.queries,
        "persons": compared.persons,
    }


def quantize_onnx(plain: Path, out: Path, clips: Tensor, about: dict[str, Any]) -> None:
    """Quantize an exported ONNX file with calibration clips (n,T,3,H,W) uint8, by onnxruntime."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(clips.split(1))

        def get_next(self) -> dict[str, Any] | None:
            clip = next(self._left, None)
            return None if clip is None else {"clips": clip.numpy()}

    prepared = plain.with_name(f"prepared-{plain.name}")
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(out), Reader(),
        quant_format=QuantFormat.QDQ, per_channel=True, op_types_to_quantize=list(_QUANTIZED),
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    model = onnx.load(str(out))
    del model.metadata_props[:]
    model.metadata_props.add(key="vreid_ext", value=json.dumps(about))
    onnx.save(model, str(out))


def quantize_openvino(plain: Path, out: Path, clips: Tensor, about: dict[str, Any]) -> None:
    """Quantize an exported OpenVINO network with calibration clips (n,T,3,H,W) uint8, by nncf."""
    opener = core()
    try:
        import nncf
    except ImportError as error:
        raise ImportError("INT8 of OpenVINO needs nncf: pip install 'vreid-ext[deploy]'") from error
    batches = nncf.Dataset([clip.numpy() for clip in clips.split(1)])
    network = nncf.quantize(
        opener.read_model(plain), batches, preset=nncf.QuantizationPreset.MIXED, subset_size=len(clips)
    )
    save_network(network, out, about)


def _size(file: Path) -> int:
    """Bytes of a network and of the weights beside it."""
    return sum(path.stat().st_size for path in {file, file.with_suffix(".bin")} if path.is_file())
