"""The application that the commands register with, and the arguments that several of them take."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Video person re-identification. `vreid --debug COMMAND ...` shows tracebacks. "
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    epilog="Example: vreid demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a run's folder for its newest one."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON, and nothing else, on stdout.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes of the recipe, such as optim.lr=1e-3."),
]
Root = Annotated[Path | None, typer.Option(help="The data set's folder, if it is another than in training.")]
Splits = Annotated[
    str | None,
    typer.Option(help="`all`, or numbers such as 0,3: the splits of iLIDS-VID or PRID2011, averaged."),
]


def with_root(overrides: list[str] | None, root: Path | None) -> list[str]:
    """The overrides, with `--dataset-root` as one of them."""
    return [*(overrides or []), *([f"dataset.root={root}"] if root is not None else [])]
