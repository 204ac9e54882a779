"""Whole models in every runtime: frames per second, peak memory and size of the file.

    python benchmarks/deployment.py [--backbones osnet_x0_25,resnet50] [--rounds 9] [--out FILE]

Each model is `sta` (random weights) on a backbone; all runtimes get the same clips and the same
number of threads (torch's; OMP_NUM_THREADS sets it). One round calls every runtime once, one after the other,
so other load on the machine affects all of them alike and the ratios stay valid. The peak memory is that of a
process that opens one file and calls it once. Needs the extras [export] and [deploy].

The INT8 files are calibrated with random clips: their speed does not depend on the pixels, their features do,
so accuracy is not measured here. `vreid export --int8` measures the loss in mAP of a trained model.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import harness
import torch

from vreid_ext.engine.build import model_of
from vreid_ext.engine.checkpoint import save_checkpoint
from vreid_ext.engine.config import recipe_from_dict
from vreid_ext.engine.export import FORMATS, Deployed, export_model
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.quantize import FILES, quantize_onnx, quantize_openvino
from vreid_ext.runtimes import open_network

BACKBONES = "osnet_x0_25,mobilenet_v2,resnet50"
CLIPS, FRAMES, SIZE = 2, 4, (256, 128)
RESULTS = Path(__file__).parent / "results" / "deployment" / "cpu.json"
# Runtime -> its file in the folder of the model; torch uses the checkpoint.
FILES_OF = {
    "torch": "",
    "torch, bfloat16": "",
    "onnxruntime": FORMATS["onnx"],
    "onnxruntime, INT8": FILES["onnx"],
    "OpenVINO": FORMATS["openvino"],
    "OpenVINO, INT8": FILES["openvino"],
}


def clips() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (CLIPS, FRAMES, 3, *SIZE), dtype=torch.uint8, generator=generator)


def write_files(backbone: str, folder: Path) -> None:
    """A checkpoint with random weights and all its exported files."""
    torch.manual_seed(0)
    recipe = recipe_from_dict(
        {
            "name": backbone,
            "model": {"name": "sta", "backbone": backbone, "regularizer": False},
            "input": {"height": SIZE[0], "width": SIZE[1]},
            "eval": {"frames": [FRAMES]},
        }
    )
    save_checkpoint(folder / "checkpoint", model_of(recipe, 625), recipe.to_dict(), 625)
    for format, quantize in (("onnx", quantize_onnx), ("openvino", quantize_openvino)):
        plain = folder / FORMATS[format]
        export_model(folder / "checkpoint", plain, format=format)
        quantize(plain, folder / FILES[format], clips(), {})


def prepare(runtime: str, folder: str) -> Callable[[], torch.Tensor]:
    """The function to time. It opens the file on its first call, so that its memory is counted."""
    opened: list[Callable[[torch.Tensor], torch.Tensor]] = []
    given = clips()

    def run() -> torch.Tensor:
        if not opened:
            opened.append(open_runtime(runtime, Path(folder)))
        return opened[0](given)

    return run


def open_runtime(runtime: str, folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    if FILES_OF[runtime]:
        return open_network(folder / FILES_OF[runtime], threads=torch.get_num_threads()).run
    model = Deployed(open_checkpoint(folder / "checkpoint")[0], with_joints=False).eval()
    half = runtime.endswith("bfloat16")

    def run(given: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            feature: torch.Tensor = model(given)
        return feature

    return run


def size_of(runtime: str, folder: Path) -> float:
    """Megabytes of the file and the weights beside it."""
    file = folder / (FILES_OF[runtime] or "checkpoint/weights.safetensors")
    return sum(each.stat().st_size for each in {file, file.with_suffix(".bin")} if each.is_file()) / 1e6


def rows_of(backbone: str, rounds: int) -> list[dict[str, object]]:
    case = f"{backbone}, {CLIPS * FRAMES} frames of {SIZE[0]} x {SIZE[1]}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(backbone, folder)
        runs = {each: prepare(each, name) for each in FILES_OF}
        runs["ours"] = runs.pop("torch")  # the name that `compare` divides by
        rows = []
        for row in harness.compare(case, runs, rounds, warmup=2):
            runtime = "torch" if row.provider == "ours" else row.provider
            memory = harness.peak("deployment", "prepare", runtime, name)
            measured = asdict(row) | memory | {"provider": runtime, "file_mb": size_of(runtime, folder)}
            rows.append(measured)
            print(f"{case:42} {runtime:18} {row.median:9.1f} ms {row.per_ours:6.2f} x torch", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", default=BACKBONES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    for backbone in given.backbones.split(","):  # written after each, so that an interruption loses one
        rows += rows_of(backbone, given.rounds)
        given.out.write_text(json.dumps({"machine": harness.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
