"""Output of the commands: results as text or JSON, tables of metrics, progress bars."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from vreid_ext._process import launched

RESUMES = "run the same command again to resume"

_console = Console()


def prints() -> bool:
    """Whether this process prints. Under torchrun only rank 0 does."""
    return launched("RANK", "0") == 0


def show(table: Table) -> None:
    """Print a table."""
    if prints():
        _console.print(table)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    if prints():
        typer.echo(f"vreid: warning: {text}", err=True)


def emit(as_json: bool, value: Any, *lines: str) -> None:
    """Print the value as one line of JSON if `as_json`, otherwise the lines of text."""
    if not prints():
        return
    for line in [json.dumps(value)] if as_json else lines:
        typer.echo(line)


def emit_figures(result: dict[str, Any], as_json: bool, *lines: str) -> None:
    """Print the metrics of an evaluation as JSON, or as a table with the protocol and the given lines."""
    if not as_json:
        show(_figures_table(result))
    emit(as_json, result, f"protocol: {result['protocol']}", *lines)


def emit_splits(summary: dict[str, Any], as_json: bool) -> None:
    """Print metrics averaged over splits as JSON or as a table."""
    if not as_json:
        show(_splits_table(summary))
    lines = [f"protocol: {protocol}" for protocol in summary["protocols"]]
    emit(as_json, summary, *lines, f"metrics: {summary['file']}")


def _figures_table(result: dict[str, Any]) -> Table:
    table = Table(title=f"{result['recipe']}, {result['ap']} AP, {result['metric']} distance")
    names = ("mAP", "mINP", "rank1", "rank5", "rank10", "rank20")
    for heading in ("frames", "", *names, "queries"):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        measured = [f"{100 * row[name]:.1f}" if name in row else "" for name in names]
        queries = f"{row['valid_queries']}/{row['queries']}"
        table.add_row(str(row["frames"]), row.get("dataset", ""), *measured, queries)
        if "paper_percent" in row:
            published = [str(row["paper_percent"].get(name, "")) for name in names]
            table.add_row("", "paper", *published, "", style="dim")
    return table


def _splits_table(summary: dict[str, Any]) -> Table:
    title = f"{summary['recipe']}, {len(summary['splits'])} splits, {summary['metric']} distance"
    table = Table(title=f"{title}: mean (deviation)")
    names = ("mAP", "rank1", "rank5", "rank10", "rank20")
    for heading in ("frames", "", *names):
        table.add_column(heading, justify="right")
    for row in summary["rows"]:
        figures = [row.get(name) for name in names]
        cells = [f"{100 * f['mean']:.1f} ({100 * f['deviation']:.1f})" if f else "" for f in figures]
        table.add_row(str(row["frames"]), row.get("dataset", ""), *cells)
        if "paper_percent" in row:
            published = [str(row["paper_percent"].get(name, "")) for name in names]
            table.add_row("", "paper", *published, style="dim")
    return table


@contextmanager
def interruptible(after: str) -> Iterator[None]:
    """On Ctrl-C, print `after`: which output exists and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"vreid: interrupted; {after}", err=True)
        raise


@contextmanager
def bars(
    *names: str, after: str = "no incomplete output is left; run the same command again to start over"
) -> Iterator[list[Callable[[int, int], None]]]:
    """Progress bars on stderr: yields a callback (done, total) for each name. Ctrl-C prints `after`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    errors = Console(stderr=True)
    with (
        interruptible(after),
        Progress(*columns, console=errors, disable=not (errors.is_terminal and prints())) as progress,
    ):

        def bar(name: str) -> Callable[[int, int], None]:
            task = progress.add_task(name, total=None, visible=False)
            return lambda done, total: progress.update(task, completed=done, total=total, visible=True)

        yield [bar(name) for name in names]
