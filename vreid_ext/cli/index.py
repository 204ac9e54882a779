"""`vreid index`: an index of tracklets that grows, is filtered and searched."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vreid_ext.cli.app import Json, app
from vreid_ext.cli.lists import search_and_print
from vreid_ext.cli.output import RESUMES, bars, emit, show

index = typer.Typer(
    help="An index of tracklets with person, camera, time and pictures. INDEX is a folder (LanceDB), "
    "postgresql://HOST/DATABASE, milvus:FILE.db or milvus:http://HOST:19530; docs/gallery.md describes them "
    "and the filters.",
    epilog="Example: vreid index search people features --where 'camera != gate and person is unknown'",
    no_args_is_help=True,
)
app.add_typer(index, name="index")
Index = Annotated[str, typer.Argument(metavar="INDEX", help="A folder, or the address of a server.")]
Features = Annotated[Path, typer.Argument(metavar="FEATURES", help="A folder of `vreid extract`.")]
Where = Annotated[
    str | None,
    typer.Option(
        help='Filter, such as "camera != 3 and time between 2026-11-27T08:00Z and 2026-11-27T09:00Z".'
    ),
]
KnownThreshold = Annotated[Path | None, typer.Option(help="A threshold of `vreid calibrate`, or its folder.")]
Approximate = Annotated[
    bool, typer.Option("--approximate", help="Use the approximate index of `vreid index optimize`.")
]


@index.command(epilog="Example: vreid index create people features")
def create(index: Index, features: Features, as_json: Json = False) -> None:
    """Create an empty index for the model, metric and dimension of a folder of features."""
    from vreid_ext.engine.index import create_index

    made = create_index(index, features)
    result = {"index": str(made.location), "dimensions": made.dimensions, "metric": made.metric}
    emit(as_json, result, f"created: {made.location}, {made.dimensions} dimensions, {made.metric} metric")


@index.command(epilog="Example: vreid index add people features --start gate=2026-11-27T08:00:00+01:00")
def add(
    index: Index,
    features: Features,
    split: Annotated[str, typer.Option(help="Split of FEATURES: gallery or query.")] = "gallery",
    dataset_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set, for pictures and times; default: that of the extraction."),
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="Camera of all tracklets; default: its folder or number.")
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CAMERA=]TIME",
            help="Time of frame 0, with a zone. The frame numbers in the image names then give the times.",
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second; default: as `vreid tracklets` has noted.")
    ] = None,
    facts: Annotated[
        Path | None,
        typer.Option(
            help="CSV file: name, and any of person, camera, start, end, frames, which it replaces."
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Put before each name, such as 2026-11-27/.")] = "",
    batch: Annotated[int, typer.Option(help="Number of tracklets per write.")] = 10_000,
    as_json: Json = False,
) -> None:
    """Add the tracklets of a folder of features.

    Each batch is added whole or not at all. To resume after an interruption, run the same command again:
    tracklets that are there already are counted and left as they are.
    """
    from vreid_ext.engine.index import add_features
    from vreid_ext.gallery import Gallery

    opened = Gallery(index)
    with bars("tracklets", after=RESUMES) as (tracklets,):
        done, notes = add_features(
            opened, features, split=split, root=dataset_root, camera=camera, starts=_starts(start or []),
            fps=fps, facts=facts, prefix=prefix, batch=batch, progress=tracklets,
        )  # fmt: skip
    result = {"index": str(opened.location), **done._asdict(), "tracklets": len(opened), "notes": notes}
    lines = [f"{done.added} tracklets added, {done.present} were present, {len(opened)} in {opened.location}"]
    emit(as_json, result, *lines, *notes)


@index.command(epilog="Example: vreid index remove people --where 'end < 2026-11-01T00:00Z'")
def remove(
    index: Index,
    where: Annotated[str, typer.Option(help="Filter that selects the tracklets to remove.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the tracklets that meet a filter."""
    from vreid_ext.gallery import Gallery

    opened = Gallery(index)
    count = opened.count(where) if dry_run else opened.remove(where)
    result = {
        "index": str(opened.location),
        "found" if dry_run else "removed": count,
        "tracklets": len(opened),
    }
    said = "would be removed" if dry_run else "removed"
    emit(as_json, result, f"{count} tracklets {said}, {len(opened)} in {opened.location}")


@index.command(epilog="Example: vreid index search people features --top 5 --where 'camera != gate'")
def search(
    index: Index,
    query: Annotated[
        Path, typer.Argument(metavar="QUERY", help="A folder of `vreid extract`; its query split is used.")
    ],
    top: Annotated[int, typer.Option(help="Number of tracklets per query.")] = 10,
    where: Where = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the lists.")] = None,
    threshold: KnownThreshold = None,
    approximate: Approximate = False,
    as_json: Json = False,
) -> None:
    """List the nearest tracklets of the index for every query; the same as `vreid search QUERY INDEX`.

    A query that is itself in the index is not listed.
    """
    search_and_print(
        index, query, top=top, where=where, out=out, threshold=threshold, approximate=approximate,
        as_json=as_json,
    )  # fmt: skip


@index.command(epilog="Example: vreid index info people")
def info(index: Index, as_json: Json = False) -> None:
    """Print the engine, the model, and the numbers of tracklets, persons and cameras."""
    from vreid_ext.gallery import Gallery

    facts = Gallery(index).info()
    if not as_json:
        table = Table("camera", box=None)
        table.add_column("tracklets", justify="right")
        table.add_column("first")
        table.add_column("last")
        for camera, row in facts["cameras"].items():
            table.add_row(camera, str(row["tracklets"]), row["first"] or "", row["last"] or "")
        show(table)
    model = (facts["model"] or {}).get("model", {}).get("name", "unknown")
    emit(
        as_json,
        facts,
        f"{facts['tracklets']} tracklets, {facts['persons']} persons, {facts['without_person']} without a "
        f"person, {facts['without_time']} without a time",
        f"{facts['dimensions']} dimensions, {facts['metric']} metric, model {model}",
        f"{facts['store']}, created {facts['created']}: {facts['index']}",
    )


@index.command(epilog="Example: vreid index optimize people")
def optimize(index: Index, as_json: Json = False) -> None:
    """Compact the storage and build the approximate index that --approximate uses."""
    from vreid_ext.gallery import Gallery

    opened = Gallery(index)
    done = opened.optimize()
    emit(as_json, {"index": str(opened.location), "result": done}, f"{opened.location}: {done}")


@index.command(
    epilog="Example: vreid index timeline people --tracklet gate-unknown0007/gate/0007 --out who.html"
)
def timeline(
    index: Index,
    out: Annotated[Path, typer.Option(help="The page, NAME.html.")],
    tracklet: Annotated[str | None, typer.Option(help="Query: a tracklet of the index, by its name.")] = None,
    person: Annotated[str | None, typer.Option(help="Query: all tracklets of a known person.")] = None,
    query: Annotated[
        Path | None, typer.Option(help="Query: a folder of `vreid extract`, with --name of the tracklet.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the tracklet in QUERY.")] = None,
    top: Annotated[
        int, typer.Option(help="Number of nearest tracklets; with a threshold, the largest number.")
    ] = 50,
    where: Where = None,
    threshold: KnownThreshold = None,
    zone: Annotated[str, typer.Option(help="Time zone of the page, such as Europe/Berlin.")] = "UTC",
    approximate: Approximate = False,
    as_json: Json = False,
) -> None:
    """Write a page that shows where a person was: the tracklets of one person by time and camera.

    With a threshold, the page has the tracklets that are the same person or too close to say. Without, it has
    the nearest. The pictures are written to NAME_files.
    """
    from vreid_ext.engine.threshold import read_threshold
    from vreid_ext.gallery import Gallery
    from vreid_ext.report.timeline import report_timeline

    opened = Gallery(index)
    known = None if threshold is None else read_threshold(threshold)
    result = report_timeline(
        opened, out, tracklet=tracklet, person=person, query=query, name=name, top=top, where=where,
        threshold=known, zone=zone, exhaustive=not approximate,
    )  # fmt: skip
    lines = [
        f"{each['start'] or 'unknown time'}  {each['camera'] or 'unknown camera'}  {each['name']}"
        for each in result["sightings"]
    ]
    emit(as_json, result, *lines, *result["notes"], f"page: {result['page']}")


def _starts(values: list[str]) -> dict[str | None, str]:
    """`CAMERA=TIME` or `TIME` by camera; None for all others."""
    starts: dict[str | None, str] = {}
    for value in values:
        camera, equals, time = value.rpartition("=")
        key = camera if equals else None
        if key in starts:
            raise ValueError(f"--start: expected one time per camera, got a second one, {value!r}")
        starts[key] = time
    return starts
