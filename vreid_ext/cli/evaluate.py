"""`vreid eval`, `vreid extract` and `vreid search`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from vreid_ext.cli.app import Checkpoint, Json, Overrides, Root, Splits, app, with_root
from vreid_ext.cli.lists import search_and_print, search_lines
from vreid_ext.cli.output import RESUMES, bars, emit, emit_figures, emit_splits, prints, show, warn


@app.command(
    name="eval", epilog="Example: vreid eval runs/first eval.sampling=dense --dataset-root /data/MARS"
)
def evaluate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A checkpoint, or the folder of a run (its newest checkpoint is used). Not needed for "
            "--all-protocols with complete features.",
        ),
    ] = None,
    overrides: Overrides = None,
    dataset_root: Root = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file for the metrics; default: a file in the folder of the run.")
    ] = None,
    report: Annotated[bool, typer.Option(help="Also write the HTML page of `vreid report`.")] = True,
    as_json: Json = False,
    splits: Splits = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Use k-reciprocal re-ranking; same as eval.rerank=true.")
    ] = False,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the features. Features that it already contains are not computed again, so "
            "the same command resumes after an interruption."
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Clip lengths, such as 1,8,all: evaluate every pair of query and gallery lengths; writes "
            "a table and a heat map."
        ),
    ] = None,
    all_protocols: Annotated[
        bool,
        typer.Option(
            "--all-protocols",
            help="With --features: print the figures of every protocol and what each choice changes.",
        ),
    ] = False,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --all-protocols: features of the same model and tracklets from other clips, such as "
            "eval.sampling=dense. May be repeated."
        ),
    ] = None,
) -> None:
    """Evaluate a checkpoint with the protocol of its data set; write the metrics and an HTML report.

    To evaluate on a data set other than that of the training, set dataset.name=NAME dataset.root=DIR. With
    --splits, CHECKPOINT is the output folder of `vreid train --splits`, or a model trained on another data
    set, and no report is written.

    Several processes: torchrun --nproc-per-node N -m vreid_ext eval ...
    """
    from vreid_ext import engine

    engine.join_processes()
    changes = [*with_root(overrides, dataset_root), *(["eval.rerank=true"] if rerank else [])]
    if all_protocols or beside:
        if not all_protocols:
            raise ValueError("--beside: expected together with --all-protocols, got it alone")
        if features is None:
            raise ValueError("--features: expected a folder of `vreid extract` for --all-protocols, got none")
        for name, given in (("--rerank", rerank), ("--splits", splits), ("--lengths", lengths)):
            if given:
                raise ValueError(f"{name}: expected without --all-protocols, got {given!r}")
        _audit(checkpoint, changes, features, beside or [], out, as_json)
        return
    if checkpoint is None:
        raise ValueError("CHECKPOINT: expected a checkpoint or a run, got none")
    if features is not None and (splits is not None or lengths is not None):
        raise ValueError("--features: expected neither --splits nor --lengths, got one of them")
    if splits is not None:
        from vreid_ext.engine.splits import evaluate_splits, parse_splits

        emit_splits(evaluate_splits(checkpoint, changes, parse_splits(splits), out=out), as_json)
        return
    if lengths is not None:
        with bars("clips") as (clips,):
            grid = engine.evaluate_checkpoint_lengths(
                checkpoint, changes, _lengths(lengths), out=out, progress=clips
            )
        if prints():
            _show_lengths(grid, as_json)
        return
    if report and prints():
        from vreid_ext.report.page import report_checkpoint

        with bars("clips", "pictures") as (clips, pictures):
            result = report_checkpoint(
                checkpoint, changes, figures=out, features=features,
                progress=clips, progress_pictures=pictures,
            )  # fmt: skip
    else:
        with bars("clips") as (clips,):
            result = engine.evaluate_checkpoint(
                checkpoint, changes, out=out, features=features, progress=clips
            )
    page = [f"report: {result['page']}"] if "page" in result else []
    emit_figures(result, as_json, f"metrics: {result['file']}", *page)


@app.command(epilog="Example: vreid extract runs/first --out features")
def extract(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="Folder for the features and the manifest.")],
    overrides: Overrides = None,
    dataset_root: Root = None,
    as_json: Json = False,
) -> None:
    """Write the features of every query and gallery tracklet (safetensors) and a manifest (JSON).

    To resume after an interruption, run the same command again. `vreid eval --features OUT` evaluates the
    features.

    Several processes: torchrun --nproc-per-node N -m vreid_ext extract ...
    """
    from vreid_ext import engine
    from vreid_ext.engine.features import export_features

    engine.join_processes()
    with bars("clips", after=RESUMES) as (clips,):
        written = export_features(checkpoint, out, with_root(overrides, dataset_root), progress=clips)
    results, lines = [], []
    for features in written:
        dimensions = features.manifest["widths"]["features"]
        counts = {split: len(rows) for split, rows in features.manifest["splits"].items()}
        listed = ", ".join(f"{count} {split}" for split, count in counts.items())
        results.append({"out": str(features.folder), "dimensions": dimensions, **counts})
        lines.append(f"{listed} tracklets x {dimensions} dimensions: {features.folder}")
    emit(as_json, results[0] if len(results) == 1 else results, *lines)


@app.command(epilog="Example: vreid search features features --top 5 --out nearest.json")
def search(
    query: Annotated[
        Path, typer.Argument(metavar="QUERY", help="A folder of `vreid extract`; its query split is used.")
    ],
    gallery: Annotated[
        str,
        typer.Argument(
            metavar="GALLERY",
            help="A folder of `vreid extract`, whose gallery split is used, or an index of `vreid index`.",
        ),
    ],
    top: Annotated[int, typer.Option(help="Number of tracklets per query.")] = 10,
    out: Annotated[Path | None, typer.Option(help="JSON file for the lists.")] = None,
    threshold: Annotated[
        Path | None,
        typer.Option(
            help="A threshold of `vreid calibrate`, or its folder; default: that of GALLERY or QUERY, if any."
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="For an index: a filter, such as 'camera != 3'; see docs/gallery.md.")
    ] = None,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="For an index: use its approximate index.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the nearest gallery tracklets of every query tracklet, with their distances.

    With a threshold, each is marked as the same person, not, or too close to say. A warning on stderr tells
    if the distances are not those of the calibration.
    """
    from vreid_ext._files import write_json
    from vreid_ext.engine.answers import answered, check_threshold
    from vreid_ext.engine.search import read_split
    from vreid_ext.engine.search import search as nearest
    from vreid_ext.engine.threshold import find_threshold, read_threshold
    from vreid_ext.gallery.stores import is_index

    if is_index(gallery):
        search_and_print(
            gallery, query, top=top, where=where, out=out, threshold=threshold, approximate=approximate,
            as_json=as_json,
        )  # fmt: skip
        return
    if where is not None or approximate:
        option = "--approximate" if where is None else "--where"
        raise ValueError(f"{option}: expected an index of `vreid index`, got {gallery!r}")
    folder = Path(gallery)
    known = find_threshold(folder, query) if threshold is None else read_threshold(threshold)
    splits = read_split(query, "query"), read_split(folder, "gallery")
    if known is not None:
        check_threshold(known, *splits)
    lists = nearest(*splits, top)
    if known is not None:
        lists, drifts = answered(lists, *splits, known)
        for each in drifts:
            warn(str(each))
    emit(as_json, lists, *search_lines(lists))
    if out is not None:
        write_json(out, lists)


def _audit(
    checkpoint: Path | None,
    changes: list[str],
    features: Path,
    beside: list[Path],
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the figures of every protocol. With a checkpoint, first complete the features."""
    from vreid_ext._files import write_json
    from vreid_ext.engine.audit import audit_features
    from vreid_ext.engine.features import export_features

    if checkpoint is not None:
        with bars("clips", after=RESUMES) as (clips,):
            written = export_features(checkpoint, features, changes, progress=clips)
        if len(written) > 1:
            raise ValueError(f"eval.frames: expected one length for --all-protocols, got {len(written)}")
    elif changes:
        raise ValueError(f"KEY=VALUE: expected none without a checkpoint, got {changes[0]!r}")
    if not prints():
        return
    with bars("protocols") as (protocols,):
        result = audit_features(features, beside=beside, progress=protocols)
    if out is not None:
        write_json(out, result)
    emit(as_json, result, *_audit_lines(result))


def _audit_lines(result: dict[str, Any]) -> list[str]:
    """A line for each choice, with the differences to the first, then the code that makes the choices."""
    rows, width = result["rows"], max(len(row["choice"]) for row in result["rows"])
    lines = [f"{'%':<{width}}   mAP  {'difference':<20}    R1  {'difference':<20}  queries"]
    for row in rows:
        cells = []
        for name in ("mAP", "rank1"):
            value, change = row[name], row["difference"].get(name)
            cells.append("" if value is None else f"{100 * value:.1f}")
            low, high = (f"{100 * change[end]:+.1f}" for end in ("low", "high")) if change else ("", "")
            cells.append(f"{100 * change['value']:+.1f} [{low}, {high}]" if change else "")
        mean, mean_change, first, first_change = cells
        lines.append(
            f"{row['choice']:<{width}}  {mean:>4}  {mean_change:<20}  {first:>4}  {first_change:<20}  "
            f"{row['queries']:>7}"
        )
    lines += [f"protocol: {result['protocol']}", "brackets: 95 % intervals over persons", "used by:"]
    lines += [f"  {row['choice']}: {row['used_by']}" for row in rows if row["used_by"]]
    return lines + [f"not shown: {line}" for line in result["missing"]]


def _lengths(text: str) -> list[Any]:
    parts = text.split(",")
    if not all(part == "all" or part.isdecimal() for part in parts):
        raise ValueError(f"--lengths: expected numbers of frames or 'all', such as 1,8,all, got {text!r}")
    return [part if part == "all" else int(part) for part in parts]


def _show_lengths(grid: dict[str, Any], as_json: bool) -> None:
    """Print rank-1 for every pair of lengths, and write a heat map next to the JSON file."""
    from vreid_ext.report import plot_length_grid

    picture = Path(grid["file"]).with_suffix(".png")
    plot_length_grid(grid["lengths"], grid["rank1"], picture, title=grid["recipe"])
    if not as_json:
        table = Table("query \\ gallery", *map(str, grid["lengths"]), title=f"{grid['recipe']}, rank-1")
        for length, row in zip(grid["lengths"], grid["rank1"], strict=True):
            table.add_row(str(length), *(f"{100 * value:.1f}" for value in row))
        show(table)
    emit(as_json, grid | {"picture": str(picture)}, f"metrics: {grid['file']}, {picture}")
