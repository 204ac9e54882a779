"""`vreid export`, `vreid recipes`, `vreid tune` and `vreid info`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from vreid_ext.cli.app import Checkpoint, Json, Overrides, app
from vreid_ext.cli.output import emit, show


@app.command(epilog="Example: vreid export runs/first --format onnx --out sta.onnx")
def export(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    format: Annotated[
        Literal["onnx", "torch"], typer.Option(help="ONNX, or a file for torch.export.load.")
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(help="The file; default: model.onnx or model.pt2 in the run's folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export the model to one file that runs without this package, and verify it against the checkpoint."""
    from vreid_ext.engine.export import export_model

    result = export_model(checkpoint, out, format=format, overrides=overrides or [])
    checked = f"differs by {result['largest_difference']:.1e} of the largest feature"
    emit(
        as_json,
        result,
        f"{result['clips']} -> features of {result['dimensions']} dimensions; {checked}: {result['file']}",
    )


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
