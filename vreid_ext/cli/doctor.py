"""`vreid doctor`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vreid_ext.cli.app import Json, Overrides, Root, app, with_root
from vreid_ext.cli.output import bars, emit, prints, show

FOUND = 3  # exit code


@app.command(epilog="Example: vreid doctor runs/first --out doctor.html")
def doctor(
    subject: Annotated[
        Path,
        typer.Argument(
            metavar="FEATURES|RUN",
            help="A folder of `vreid extract`, or the folder of a run or a checkpoint.",
        ),
    ],
    overrides: Overrides = None,
    dataset_root: Root = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page, NAME.html, or a folder for doctor.html; default: the run's folder. No page is "
            "written for FEATURES without it."
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="With RUN: folder for its features. Those that it contains are not computed again."
        ),
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(help="Run only this check; may be repeated. Default: all.")
    ] = None,
    limit: Annotated[
        int, typer.Option(help="Number of tracklets to compare with each other; whole persons are drawn.")
    ] = 20_000,
    as_json: Json = False,
) -> None:
    """Examine features, or a run with its model and pictures, for faults; say what was found and what to do.

    Looks for NaN and constant dimensions, collapsed similarities, duplicates, wrong labels, camera bias,
    wrong colors, and persons or pictures in training and test. Colors, pictures and training need RUN.

    Exit codes: 0 nothing found, 3 something found; 1, 2 and 130 as for the other commands.
    """
    from vreid_ext.engine.doctor import Subject, check_names, diagnose, of_features, of_run
    from vreid_ext.features.format import MANIFEST

    check_names(check)
    page = out
    with bars("clips", "images", "pictures") as (clips, images, pictures):
        examined: Subject
        if (subject / MANIFEST).is_file():
            for name, value in (("KEY=VALUE", overrides), ("--features", features)):
                if value:
                    raise ValueError(f"{name}: expected none with a folder of features, got {value}")
            if dataset_root is not None:
                raise ValueError(
                    f"--dataset-root: expected none with a folder of features, got {str(dataset_root)!r}"
                )
            examined = of_features(subject, limit=limit)
        else:
            from vreid_ext.engine.checkpoint import resolve_checkpoint, run_folder

            page = out or run_folder(resolve_checkpoint(subject))
            examined = of_run(
                subject, with_root(overrides, dataset_root), features=features, limit=limit,
                progress=clips, progress_images=images,
            )  # fmt: skip
        findings = diagnose(examined, check)
        if page is not None:
            from vreid_ext.report.doctor import write_doctor_page

            page = page if page.suffix.lower() == ".html" else page / "doctor.html"
            write_doctor_page(page, examined, findings, progress=pictures)
    written = {} if page is None else {"page": str(page)}
    found = [each for each in findings if each.found]
    if prints() and not as_json:
        _show(findings)
    emit(
        as_json,
        _as_json(examined, findings) | written,
        *(f"{each.check}: {each.remedy}" for each in found),
        f"{len(found)} of {len(findings)} checks found something",
        *(f"{name}: {value}" for name, value in written.items()),
    )
    if found:
        raise typer.Exit(FOUND)


def _show(findings: Any) -> None:
    table = Table("check", "result", "numbers", box=None)
    for each in findings:
        style = "bold" if each.found else "dim" if each.severity == "skipped" else None
        result = "not checked" if each.severity == "skipped" else each.severity
        table.add_row(each.check, result, escape(each.summary), style=style)
    show(table)


def _as_json(examined: Any, findings: Any) -> dict[str, Any]:
    return {
        "subject": examined.name,
        "tracklets": len(examined.features),
        "dimensions": examined.features.shape[1],
        "found": sum(each.found for each in findings),
        "checks": [
            {
                **{name: value for name, value in each._asdict().items() if name != "groups"},
                "groups": [
                    {"title": group.title, "tracklets": [examined.tracklets[n].name for n in group.tracklets]}
                    for group in each.groups
                ],
            }
            for each in findings
        ],
    }
