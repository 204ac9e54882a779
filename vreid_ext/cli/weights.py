"""`vreid weights` and `vreid import`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from vreid_ext.cli.app import Json, app
from vreid_ext.cli.output import emit, show

WeightFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A .pth, .pt, .ckpt, .bin or .safetensors file, a folder with one, or "
        "hf:OWNER/NAME[/FILE][@REVISION].",
    ),
]


@app.command(epilog="Example: vreid weights osnet_x0_25_msmt17.pth --to osnet.safetensors")
def weights(
    file: WeightFile,
    to: Annotated[
        Path | None,
        typer.Option(help="Convert it to this .safetensors file, with the description in a .json file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a weight file is: its package, classifier, input size, and the backbones that it fits.

    The file is read without running code from it. `model.weights=FILE` starts a training from it.
    """
    from vreid_ext.engine.weights import convert_weights, describe_weights

    found = describe_weights(file) if to is None else convert_weights(file, to)
    emit(as_json, found, *_lines(found))
    if not as_json and found["backbones"]:
        show(_fits(found["backbones"]))
    if to is not None and not as_json:
        emit(False, None, f"written: {found['converted']}")


@app.command(name="import", epilog="Example: vreid import osnet_x0_25_msmt17.pth runs/osnet")
def import_(
    file: WeightFile,
    out: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    height: Annotated[int, typer.Option(help="Height of the input in pixels.")] = 256,
    width: Annotated[int, typer.Option(help="Width of the input in pixels.")] = 128,
    as_json: Json = False,
) -> None:
    """Make a run from trained weights of torchreid, fast-reid and others, to evaluate it without training.

    The run has the backbone that the file fits and its embedding layer; the feature of a tracklet is the mean
    over its frames. Next: vreid eval RUN dataset.name=NAME --dataset-root DIR.
    """
    from vreid_ext.engine.imported import import_weights

    made = import_weights(file, out, height=height, width=width)
    embedding = {"fc": "Linear, BN and ReLU", "bn": "BNNeck", "none": "none in the file"}[made["embedding"]]
    emit(
        as_json,
        made,
        f"backbone {made['model']['backbone']}, embedding: {embedding}, {made['classes']} classes",
        f"run: {made['run']}",
    )


def _lines(found: dict[str, Any]) -> list[str]:
    because = f", because it has {found['evidence']!r}" if found["evidence"] else ""
    where = f" under {'.'.join(found['wrapper'])!r}" if found["wrapper"] else ""
    prefix = f", all with the prefix {found['prefix']!r}" if found["prefix"] else ""
    parts = ", ".join(f"{name} {count}" for name, count in found["parts"].items())
    classifier, inputs = found["classifier"], found["inputs"]
    lines = [
        f"file: {found['file']}",
        f"package: {found['package']}{because}",
        f"tensors: {found['tensors']}{where}{prefix}, {found['parameters'] / 1e6:.2f} million numbers",
        f"parts: {parts}",
        f"classifier: {classifier['name']}, {classifier['classes']} classes"
        if classifier
        else "classifier: none",
    ]
    if inputs:
        sizes = " or ".join(
            f"{each['height']} x {each['width']} at stride {each['stride']}" for each in inputs
        )
        lines.append(f"input: {sizes}")
    if not any(fit["complete"] for fit in found["backbones"].values()):
        lines.append("backbones: no backbone of this package has all its tensors in the file")
    return lines


def _fits(backbones: dict[str, dict[str, Any]]) -> Table:
    table = Table("model.backbone", "loads", "prefix", box=None)
    for heading in ("fit", "other shape", "missing", "not used"):
        table.add_column(heading, justify="right")
    for name, fit in backbones.items():
        counts = (str(fit[key]) for key in ("fit", "other_shape", "missing", "unused"))
        table.add_row(name, "yes" if fit["complete"] else "no", fit["prefix"], *counts)
    return table
