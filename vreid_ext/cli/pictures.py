"""`vreid report` and `vreid plot`."""

from pathlib import Path
from typing import Annotated

import typer

from vreid_ext.cli.app import Checkpoint, Json, Overrides, Root, app, with_root
from vreid_ext.cli.output import bars, emit, emit_figures


@app.command(name="report", epilog="Example: vreid report runs/synth_sta --beside runs/synth_avg --out pages")
def report_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The folder of a run (its newest checkpoint is used), or a checkpoint."
        ),
    ],
    overrides: Overrides = None,
    dataset_root: Root = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page, NAME.html, or a folder for report.html; default: the run's folder."),
    ] = None,
    ranks: Annotated[int, typer.Option(help="Length of the ranked lists.")] = 20,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another run to compare with; the page also shows its metrics and curves."),
    ] = None,
    threshold: Annotated[
        Path | None,
        typer.Option(help="A threshold of `vreid calibrate`; default: threshold.json in the run, if any."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a run and write an HTML report: metrics, curves, ranked lists of all queries, attention.

    With a threshold, the page says which of the listed tracklets are the same person.

    The page is NAME.html. The pictures are written to NAME_files and the metrics to NAME.json next to it.
    """
    from vreid_ext.engine.checkpoint import resolve_checkpoint, run_folder
    from vreid_ext.engine.run_comparison import summary
    from vreid_ext.report.page import report_checkpoint

    page = out or run_folder(resolve_checkpoint(checkpoint))
    if page.suffix.lower() != ".html":
        page /= "report.html"
    others = {str(run): run for run in beside or []}
    with bars("clips", "pictures") as (clips, pictures):
        result = report_checkpoint(
            checkpoint, with_root(overrides, dataset_root), figures=page.with_suffix(".json"),
            ranks=ranks, beside=others, threshold=threshold, progress=clips, progress_pictures=pictures,
        )  # fmt: skip
    emit_figures(result, as_json, *map(summary, result.get("differences", [])), f"report: {result['page']}")


plot = typer.Typer(
    help="Draw one picture of a run. The suffix of the file name selects PNG or SVG.",
    epilog="Example: vreid plot cmc runs/synth_sta --out cmc.svg",
    no_args_is_help=True,
)
app.add_typer(plot, name="plot")
Picture = Annotated[Path, typer.Option(help="The picture, NAME.png or NAME.svg.")]
Query = Annotated[str, typer.Option(help="A query tracklet: its name, or its number, counted from 0.")]


@plot.command(name="cmc", epilog="Example: vreid plot cmc runs/synth_sta runs/synth_avg --out cmc.svg")
def plot_cmc(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT", help="A finished run, or the JSON of `vreid eval`.")
    ],
    out: Picture,
    ranks: Annotated[int, typer.Option(help="Length of the curves, at most 50.")] = 20,
    as_json: Json = False,
) -> None:
    """Draw the CMC curves of one or more runs."""
    from vreid_ext.report.figures import draw_cmc

    draw_cmc(results, out, ranks=ranks)
    emit(as_json, {"picture": str(out)}, f"picture: {out}")


@plot.command(name="heatmap", epilog="Example: vreid plot heatmap runs/synth_sta --query 3 --out a.png")
def plot_heatmap(
    checkpoint: Checkpoint,
    out: Picture,
    query: Query,
    overrides: Overrides = None,
    dataset_root: Root = None,
    as_json: Json = False,
) -> None:
    """Draw the attention of the model on the frames of a query."""
    from vreid_ext.report.figures import draw_heatmap

    draw_heatmap(checkpoint, query, out, with_root(overrides, dataset_root))
    emit(as_json, {"picture": str(out)}, f"picture: {out}")


@plot.command(name="ranking", epilog="Example: vreid plot ranking runs/synth_sta --query 3 --out r.png")
def plot_ranking(
    checkpoint: Checkpoint,
    out: Picture,
    query: Query,
    overrides: Overrides = None,
    dataset_root: Root = None,
    ranks: Annotated[int, typer.Option(help="Number of ranks; junk between them is drawn in addition.")] = 10,
    as_json: Json = False,
) -> None:
    """Draw the nearest gallery tracklets of a query, marked as hit, miss or junk."""
    from vreid_ext.report.figures import draw_ranking

    with bars("clips") as (clips,):
        draw_ranking(checkpoint, query, out, with_root(overrides, dataset_root), ranks=ranks, progress=clips)
    emit(as_json, {"picture": str(out)}, f"picture: {out}")
