"""`vreid calibrate`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from vreid_ext.cli.app import Json, app
from vreid_ext.cli.output import bars, emit, show


@app.command(epilog="Example: vreid calibrate features --fmr 1e-3 --out runs/first")
def calibrate(
    features: Annotated[
        Path, typer.Argument(metavar="FEATURES", help="A folder of `vreid extract` with known persons.")
    ],
    fmr: Annotated[
        float,
        typer.Option(help="False-match rate: the fraction of pairs of different persons to call the same."),
    ] = 1e-3,
    out: Annotated[
        Path | None,
        typer.Option(help="The file, or a folder for threshold.json, such as the run; default: FEATURES."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw curve and histograms, NAME.png or NAME.svg.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Number of bootstrap resamples.")] = 1000,
    as_json: Json = False,
) -> None:
    """Choose the distance up to which two tracklets are called the same person, and save it.

    Prints the threshold with its 95 % interval, what it costs in misses, and the rates of every pair of
    cameras. `vreid search` and `vreid report` then answer "same", "not" or "too close to say", which is the
    interval of the threshold.
    """
    from vreid_ext.engine.calibrate import calibrate as choose

    if plot is not None:
        from vreid_ext.report.style import picture_path

        picture_path(plot)
    with bars("queries") as (queries,):
        saved, figures = choose(features, fmr, out=out, resamples=resamples, progress=queries)
    if plot is not None:
        from vreid_ext.report.verification import plot_verification

        plot_verification(figures, plot, threshold=saved["threshold"])
    drawn = {} if plot is None else {"picture": str(plot)}
    if not as_json:
        _show(figures, fmr)
    emit(
        as_json,
        _as_json(saved, figures) | drawn,
        *_lines(saved, figures),
        *(f"{k}: {v}" for k, v in drawn.items()),
    )


def _show(figures: Any, fmr: float) -> None:
    """Print a table of the operating points and open-set rates, and one of the pairs of cameras."""
    table = Table(title="rates (%) with 95 % intervals")
    for heading in ("", "threshold", "TPR", "FMR at threshold"):
        table.add_column(heading, justify="right")
    for point in figures.points:
        name = f"FPR {100 * point.fpr:g}"
        table.add_row(name, f"{point.threshold.value:.4f}", _percent(point.tpr), _percent(point.fmr))
    table.add_row("EER", "", _percent(figures.eer), "")
    for fpir, rate in figures.identification.items():
        table.add_row(f"DIR at FPIR {100 * fpir:g}", "", _percent(rate), "")
    show(table)
    if figures.cameras:
        place = [point.fpr for point in figures.points].index(fmr)
        cameras = Table(title="at the threshold, by pair of cameras (%)")
        for heading in ("cameras", "FMR", "misses", "genuine", "impostors"):
            cameras.add_column(heading, justify="right")
        for pair in figures.cameras:
            rates = [rate[place] for rate in (pair.fmr, pair.fnmr)]
            shown = ["" if rate != rate else f"{100 * rate:.3g}" for rate in rates]
            names = " ".join(map(str, pair.cameras))
            cameras.add_row(names, *shown, str(pair.genuine), str(pair.impostors))
        show(cameras)


def _lines(saved: dict[str, Any], figures: Any) -> list[str]:
    threshold, false, missed = (saved[name] for name in ("threshold", "fmr", "fnmr"))
    persons = saved["persons"]
    lines = [
        f"threshold: {saved['metric']} distance {threshold['value']:.4f} "
        f"[{threshold['low']:.4f}, {threshold['high']:.4f}]",
        f"false matches: {_interval(false)} % of {saved['impostors']} pairs of different persons",
        f"misses: {_interval(missed)} % of {saved['genuine']} pairs of one person; {persons} persons",
        f"protocol: {saved['protocol']}",
    ]
    for name, rates in figures.unresolved.items():
        if rates:
            of = {"fprs": "FPR", "fpirs": "FPIR"}[name]
            listed = ", ".join(f"{100 * rate:g}" for rate in rates)
            lines.append(f"not resolved, fewer than 10 false matches: {of} {listed} %")
    return [*lines, f"saved: {saved['file']}"]


def _as_json(saved: dict[str, Any], figures: Any) -> dict[str, Any]:
    points = [
        {
            "fpr": each.fpr,
            **{name: getattr(each, name)._asdict() for name in ("threshold", "fmr", "tpr", "fnmr")},
        }
        for each in figures.points
    ]
    rates = {str(fpir): rate._asdict() for fpir, rate in figures.identification.items()}
    cameras = [
        each._asdict() | {name: [_number(rate) for rate in getattr(each, name)] for name in ("fmr", "fnmr")}
        for each in figures.cameras
    ]
    shown = {name: value for name, value in saved.items() if name != "scores"}
    return {
        **shown, "points": points, "eer": figures.eer._asdict(), "identification": rates,
        "unresolved": figures.unresolved, "cameras": cameras,
    }  # fmt: skip


def _number(rate: float) -> float | None:
    return None if rate != rate else rate  # JSON has no NaN


def _interval(figure: dict[str, float]) -> str:
    return "{:.3g} [{:.3g}, {:.3g}]".format(*(100 * figure[name] for name in ("value", "low", "high")))


def _percent(figure: Any) -> str:
    return _interval(figure._asdict())
