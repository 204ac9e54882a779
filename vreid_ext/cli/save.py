"""`vreid save`."""

from pathlib import Path
from typing import Annotated

import typer

from vreid_ext.cli.app import Checkpoint, Json, app
from vreid_ext.cli.output import emit


@app.command(epilog="Example: vreid save runs/first published --license apache-2.0")
def save(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    license: Annotated[
        str | None,
        typer.Option(help="Licence of the weights, such as apache-2.0; default: stated as unknown."),
    ] = None,
    figures: Annotated[
        list[Path] | None,
        typer.Option(help="JSON of `vreid eval` for the model card; default: the result of the run."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Title of the card; default: name of the recipe.")] = None,
    as_json: Json = False,
) -> None:
    """Write the model to a folder to pass on: weights, settings, threshold and a model card (README.md).

    `Embedder.from_pretrained` and all commands open the folder, or hf:OWNER/NAME once it is on the hub.
    """
    from vreid_ext.engine.pretrained import save_pretrained

    result = save_pretrained(checkpoint, out, license=license, figures=figures, name=name)
    measured = f"{len(result['figures'])} rows of figures" if result["figures"] else "no figures"
    emit(
        as_json,
        result,
        f"{', '.join(result['files'])}: {result['folder']}",
        f"card: {measured}, licence {result['license']}",
    )
