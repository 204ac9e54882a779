"""The Typer application that commands register with, and the arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Video person re-identification. `vreid --debug COMMAND ...` shows tracebacks. "
    "Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted.",
    epilog="Example: vreid demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A checkpoint, or the folder of a run (its newest checkpoint is used).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print only one line of JSON on stdout.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Overrides of the recipe, such as optim.lr=1e-3."),
]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the data set; default: the folder used in training.")
]
Splits = Annotated[
    str | None,
    typer.Option(
        help="Splits of iLIDS-VID or PRID2011: `all`, or numbers such as 0,3. Results are averaged."
    ),
]


def with_root(overrides: list[str] | None, root: Path | None) -> list[str]:
    """The overrides, plus `dataset.root` if `--dataset-root` is given."""
    return [*(overrides or []), *([f"dataset.root={root}"] if root is not None else [])]
