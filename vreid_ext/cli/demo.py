"""`vreid demo`."""

from pathlib import Path
from typing import Annotated

import typer

from vreid_ext.cli.app import Json, app
from vreid_ext.cli.output import RESUMES, emit, interruptible


@app.command(epilog="Example: vreid demo vreid-demo --seed 1")
def demo(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for the set, the runs and the pictures.")
    ] = Path("vreid-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the rendered set and of the training.")] = 0,
    as_json: Json = False,
) -> None:
    """Render a set, train a model, and compare two poolings on corrupted frames (minutes on a CPU)."""
    from vreid_ext.demo import run_demo

    with interruptible(RESUMES):
        rows = run_demo(out, seed=seed, quiet=as_json)
    emit(as_json, {"out": str(out), "report": str(out / "report.html"), "rows": rows})
