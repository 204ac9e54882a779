"""`vreid init`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from vreid_ext.cli.app import Json, app
from vreid_ext.cli.output import emit


@app.command(epilog="Example: vreid init /data/people --out people.yaml")
def init(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="A folder of tracklets, in any layout that is known.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The recipe; default: NAME.yaml, where NAME is the folder's name.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(help="Initial weights: imagenet (`vreid train` downloads them), a file, or none."),
    ] = "imagenet",
    gpu: Annotated[
        bool | None,
        typer.Option("--gpu/--cpu", help="Settings for a GPU or for a CPU; default: as on this machine."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Look at a folder of tracklets and write a recipe for it, with comments that explain the settings.

    The layout is found by trying all readers; `vreid data` prints more about the folder.
    """
    from vreid_ext.engine.propose import write_proposal

    file = out or Path(f"{root.absolute().name or 'recipe'}.yaml")
    found, proposal = write_proposal(root, file, weights=weights, gpu=gpu, force=force)
    data = found.data
    settings = dataclasses.asdict(proposal)
    result: dict[str, Any] = {
        "recipe": str(file),
        "dataset": data.name,
        **data.counts(),
        "protocol": data.protocol,
    }
    result |= {"queries": len(data.query), "matched": found.matched, "heights": found.heights}
    result |= {"widths": found.widths, "lengths": found.lengths, "notes": found.notes, "proposal": settings}
    emit(
        as_json,
        result,
        data.summary(),
        *(f"note: {note}" for note in found.notes),
        "batches of {p} persons x {k} clips x {frames} frames of {height} x {width}, {steps} steps".format(
            **settings
        ),
        f"written: {file}; next: vreid train {file}",
    )
