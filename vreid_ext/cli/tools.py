"""`vreid export`, `vreid recipes`, `vreid tune` and `vreid info`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from vreid_ext.cli.app import Checkpoint, Json, Overrides, Root, app, with_root
from vreid_ext.cli.output import emit, show


@app.command(epilog="Example: vreid export runs/first --format openvino --int8 --max-loss 1")
def export(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    format: Annotated[
        Literal["onnx", "torch", "openvino"],
        typer.Option(help="ONNX, a file for torch.export.load, or OpenVINO (.xml and .bin)."),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file; default: model.onnx, model.pt2 or model.xml in the run's folder, or "
            "model_int8.onnx or model_int8.xml."
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Quantize to INT8 with clips of the data set, and measure the loss in mAP and the speed.",
        ),
    ] = False,
    calibration: Annotated[int, typer.Option(help="With --int8: number of clips for the calibration.")] = 64,
    max_loss: Annotated[
        float | None,
        typer.Option(help="With --int8: largest loss in points of mAP; above it no file is written."),
    ] = None,
    dataset_root: Root = None,
    as_json: Json = False,
) -> None:
    """Export the model to a file that runs without this package, and verify it against the checkpoint.

    With --int8 the file is evaluated on the data set of the recipe, because it cannot equal the checkpoint.
    """
    changes = with_root(overrides, dataset_root)
    if int8:
        from vreid_ext.engine.quantize import export_int8

        if format == "torch":
            raise ValueError("--int8: expected --format onnx or openvino, got torch")
        result = export_int8(
            checkpoint, out, format=format, calibration=calibration, max_loss=max_loss, overrides=changes
        )
        emit(as_json, result, *_of_int8(result))
        return
    if max_loss is not None:
        raise ValueError(f"--max-loss: expected --int8, got {max_loss} without it")
    from vreid_ext.engine.export import export_model

    result = export_model(checkpoint, out, format=format, overrides=changes)
    checked = f"differs by {result['largest_difference']:.1e} of the largest feature"
    emit(
        as_json,
        result,
        f"{result['clips']} -> features of {result['dimensions']} dimensions; {checked}: {result['file']}",
    )


def _of_int8(result: dict[str, Any]) -> list[str]:
    figures = result["int8"]
    loss, low, high = (100 * figures["loss"][name] for name in ("value", "low", "high"))
    return [
        f"{result['clips']} -> features of {result['dimensions']} dimensions: {result['file']}",
        f"mAP {100 * figures['mAP_float32']:.2f} -> {100 * figures['mAP']:.2f}: loss {loss:.2f} points "
        f"[{low:.2f}, {high:.2f}] ({figures['queries']} queries of {figures['persons']} persons)",
        f"frames per second {figures['frames_per_second_float32']:.0f} -> "
        f"{figures['frames_per_second']:.0f}: {figures['speedup']:.2f} x the float32 file here",
        f"{figures['bytes_float32'] / 1e6:.1f} MB -> {figures['bytes'] / 1e6:.1f} MB, calibrated with "
        f"{figures['calibration']} clips",
    ]


@app.command(epilog="Example: vreid recipes")
def recipes(as_json: Json = False) -> None:
    """List the recipes of the package."""
    from vreid_ext.engine import load_recipe, recipe_names

    sources = {name: load_recipe(name).paper.source for name in recipe_names()}
    if as_json:
        emit(True, sources)
        return
    table = Table("recipe", "published in", box=None)
    for name, source in sources.items():
        table.add_row(name, source)
    show(table)


@app.command(epilog="Example: vreid tune")
def tune(
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; default: the file that the kernels read, which is VREID_TRITON_TABLES or "
            "vreid_ext/triton.json in the user's configuration folder."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tune the tile sizes of the Triton kernels on this GPU.

    The tables of other GPUs in the file are kept.
    """
    import torch

    from vreid_ext import backends

    reason = backends.reason("sta_pool", "triton", torch.device("cuda"), torch.float32)
    if reason is not None:
        raise RuntimeError(f"the Triton kernels cannot be tuned: {reason}")
    from vreid_ext._files import write_json
    from vreid_ext.backends.triton import configs, tune

    path = out or configs.tables_file()
    tables = configs.read_tables(path) if path.exists() else {}
    gpu = torch.cuda.get_device_name()
    tables[gpu] = tune.tune(tune.measure, lambda line: typer.echo(line, err=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, tune.as_json(tables))
    emit(as_json, {"gpu": gpu, "tables": str(path)}, f"tables of {gpu}: {path}")


@app.command(epilog="Example: vreid info")
def info(as_json: Json = False) -> None:
    """Print the build, the hardware, and for each op which backends are usable and why others are not."""
    from vreid_ext import backends
    from vreid_ext.engine.environment import environment

    facts = environment()
    if as_json:
        ops = [{"op": op, "backend": name, "unusable": reason} for op, name, reason in backends.usable()]
        emit(True, {"environment": facts, "ops": ops})
        return
    facts_table = Table(box=None, show_header=False)
    for name, value in facts.items():
        facts_table.add_row(name, value)
    show(facts_table)
    usable = Table("op", "backend", "usable", title="ops and backends")
    for op, backend, reason in backends.usable():
        usable.add_row(op, backend, "yes" if reason is None else f"no: {reason}")
    show(usable)
