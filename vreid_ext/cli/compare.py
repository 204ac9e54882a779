"""`vreid compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from vreid_ext.cli.app import Json, app
from vreid_ext.cli.output import emit, show


@app.command(epilog="Example: vreid compare average=runs/avg-0,runs/avg-1 sta=runs/sta-0,runs/sta-1")
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A finished run, the JSON of `vreid eval`, or for several seeds of one row a folder of runs "
            "or LABEL=RUN,RUN,RUN.",
        ),
    ],
    plot: Annotated[Path | None, typer.Option(help="Draw mAP with intervals, NAME.png or NAME.svg.")] = None,
    paired: Annotated[
        bool,
        typer.Option("--paired", help="The runs of all rows are evaluations of the same models, in order."),
    ] = False,
    resamples: Annotated[int, typer.Option(help="Number of bootstrap resamples.")] = 10_000,
    as_json: Json = False,
) -> None:
    """Print figures with 95 % intervals and the difference of every later run to the first.

    Intervals are from a bootstrap over persons, with the same persons for both runs, and over the seeds where
    a row has several, with --paired the same for both. A difference is not decided if its interval contains
    zero.
    """
    from vreid_ext.engine.run_comparison import compare_runs, runs_of

    rows: dict[str, list[Path]] = {}
    for label, paths in map(runs_of, runs):
        if label in rows:
            raise ValueError(f"runs: expected each label once, got {label!r} twice")
        rows[label] = paths
    if plot is not None:
        from vreid_ext.report.style import picture_path

        picture_path(plot)
    result = compare_runs(rows, resamples=resamples, paired=paired)
    if not as_json:
        _show(result)
    if plot is not None:
        _draw(result, plot)
        result["picture"] = str(plot)
    emit(as_json, result, *([f"picture: {plot}"] if plot is not None else []))


def _show(result: dict[str, Any]) -> None:
    """Print a table of the rows and a table of the differences, for mAP and rank-1."""
    from vreid_ext.engine.run_comparison import FIGURES, in_percent

    table = Table("", "frames", title="figures (%) with 95 % intervals")
    differences = Table("", "frames", title=f"difference to {result['differences'][0]['to']} (points)")
    for each in (table, differences):
        for name in ("mAP", "rank1"):
            each.add_column(FIGURES[name], justify="right")
    for heading in ("queries", "persons", "runs"):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        counts = (str(row["queries"]), str(row["persons"]), str(len(row["runs"])))
        table.add_row(*_named(row), *(in_percent(row[name]) for name in ("mAP", "rank1")), *counts)
    for row in result["differences"]:
        differences.add_row(*_named(row), *(in_percent(row[name]) for name in ("mAP", "rank1")))
    show(table)
    show(differences)


def _named(row: dict[str, Any]) -> tuple[str, str]:
    dataset = f", {row['dataset']}" if "dataset" in row else ""
    return row["label"] + dataset, str(row["frames"])


def _draw(result: dict[str, Any], path: Path) -> None:
    from vreid_ext.report import plot_intervals

    several = len(result["differences"]) >= len({row["label"] for row in result["rows"]})

    def intervals(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
        return {
            ", ".join(_named(row)) + " frames" if several else row["label"]: list(row["mAP"].values())[:3]
            for row in rows
        }

    plot_intervals(intervals(result["rows"]), path, differences=intervals(result["differences"]))
