"""The report of a run: one HTML page that works without a server, and a folder with its thumbnails."""

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup

from vreid_ext._files import whole_file
from vreid_ext._lock import one_writer
from vreid_ext.data import Tracklet
from vreid_ext.engine.build import black_box_of, corruption_of
from vreid_ext.engine.checkpoint import run_folder
from vreid_ext.engine.environment import environment
from vreid_ext.engine.evaluate import Evaluated, evaluate_checkpoint, figures_file
from vreid_ext.engine.figures import read_result
from vreid_ext.engine.run_comparison import FIGURES, differences_or_reason, in_percent
from vreid_ext.engine.threshold import Threshold
from vreid_ext.report.attention import picture_attention
from vreid_ext.report.curves import plot_cmc, plot_curves
from vreid_ext.report.decision import Decision, Known, decide, interval_percent, known_threshold, percent
from vreid_ext.report.figures import cmc_curves
from vreid_ext.report.ranked import Listed, ranked_lists
from vreid_ext.report.strips import strip_frames, strip_name, write_strips
from vreid_ext.report.templates import template
from vreid_ext.report.verification import plot_verification

RANKS = 20
HARDEST = 12
PICTURES = 12
AP = {
    "precision": "the mean over a query's matches of the precision at each match (torchreid, fast-reid)",
    "trapezoid": "the area under the precision-recall curve by trapezoids, from precision 1 at recall 0 "
    "(the evaluation code of MARS)",
}
_BOOKKEEPING = ("kind", "step", "epoch")
_INK = "#7f7e7d"  # placeholder in matplotlib's SVG for the text color of the page


def report_checkpoint(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    figures: Path | None = None,
    features: Path | None = None,
    ranks: int = RANKS,
    beside: Mapping[str, Path] | None = None,
    threshold: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    progress_pictures: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint, or the newest checkpoint of a run, and write its metrics and an HTML page.

    The page NAME.html is written next to the metrics NAME.json. The folder NAME_files next to it contains the
    thumbnails of the listed tracklets and the attention pictures. The page shows the metrics of every test
    length and the ranked lists of the first one.

    Args:
        path, overrides, figures, features, progress: as in `evaluate_checkpoint`, where `figures` is
            called `out`.
        ranks: length of each ranked list, not counting junk.
        beside: label -> folder of another run; its metrics and curves are shown for comparison, and
            the difference to it with its interval (`compare_runs`).
        threshold: a file of `vreid calibrate`; default: threshold.json in the run's folder, if there is one.
            The page then says which listed tracklets are the same person.
        progress_pictures: called with (thumbnails done, total number of thumbnails).

    Returns:
        The result of `evaluate_checkpoint`, plus `page` and, for runs in `beside`, `differences`
        (`differences_or_reason`).

    Raises:
        ValueError: as in `evaluate_checkpoint`; or ranks is below 1; or a run in `beside` has no metrics yet;
            or `threshold` is for another model.
    """
    if ranks < 1:
        raise ValueError(f"ranks: expected at least 1, got {ranks}")
    runs = dict(beside or {})
    others = {label: read_result(run) for label, run in runs.items()}
    overrides = list(overrides)
    known = known_threshold(path, overrides, threshold)
    figures = figures or figures_file(path, overrides)
    with one_writer("out", figures):
        evaluations: list[Evaluated] = []
        result = evaluate_checkpoint(
            path, overrides, out=figures, features=features, progress=progress, observe=evaluations.append
        )
        page = Path(result["file"]).with_suffix(".html")
        own = result["recipe"]
        if own in runs:  # labels must be unique
            runs[f"{own} (beside)"], others[f"{own} (beside)"] = runs.pop(own), others.pop(own)
        differences = list(
            chain(*(differences_or_reason({label: [run], own: [figures]}) for label, run in runs.items()))
        )
        logs = {own: run_folder(Path(result["checkpoint"])), **runs}
        write_page(
            page,
            evaluations[0],
            result,
            ranks=ranks,
            beside=others,
            differences=differences,
            known=known,
            logs={label: run / "log.jsonl" for label, run in logs.items() if (run / "log.jsonl").is_file()},
            progress=progress_pictures,
        )
        return result | {"page": str(page)} | ({"differences": differences} if runs else {})


def write_page(
    page: Path,
    evaluated: Evaluated,
    result: Mapping[str, Any],
    *,
    ranks: int = RANKS,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
    differences: Sequence[Mapping[str, Any]] = (),
    known: Known | None = None,
    logs: Mapping[str, Path] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the page of an evaluation. An existing page is replaced only when the new one is complete.

    Args:
        evaluated: the evaluation with the test length for which ranked lists are shown.
        result: the metrics, as returned by `evaluate_checkpoint`.
        ranks: length of each ranked list, not counting junk.
        beside: label -> metrics of another run.
        differences: differences to these runs, as `report_checkpoint` returns them.
        known: the threshold of the run.
        logs: label -> log.jsonl of a run.
        progress: called with (thumbnails done, total number of thumbnails).
    """
    files = page.with_name(f"{page.stem}_files")
    data = evaluated.dataset
    lists = ranked_lists(evaluated, ranks)
    listed = [data.gallery[index] for index in sorted({place.gallery for place in chain(*lists)})]
    changes: Any = {
        "black_box": black_box_of(evaluated.recipe.dataset),
        "corruption": corruption_of(evaluated.recipe.eval, data),
    }
    write_strips([*data.query, *listed], files, progress, **changes)
    hardest = _hardest(evaluated)
    attention = _picture(evaluated, hardest, files)
    decision = decide(evaluated, known or Known())
    rows = [{"label": result["recipe"], **row} for row in result["rows"]]
    rows += [
        {"label": label + _other_rules(other, result), **row}
        for label, other in (beside or {}).items()
        for row in other["rows"]
    ]
    page_template = template("page.html", in_percent=in_percent, rate=percent, rates=interval_percent)
    content = page_template.render(
        title=f"{result['recipe']} on {result['dataset']}",
        result=result,
        rows=rows,
        differences=differences,
        figures=FIGURES,
        ap=AP[result["ap"]],
        cmc=_inline(lambda path: plot_cmc(cmc_curves(rows, RANKS), path), "cmc"),
        training=_training(logs or {}),
        decision={**decision._asdict(), "plot": _decision_plot(decision)},
        data=_browsable(evaluated, lists, attention, files.name, decision.threshold),
        ranks=ranks,
        hardest=hardest[:HARDEST],
        attention=attention,
        model=evaluated.recipe.model,
        recipe=evaluated.recipe.to_yaml(),
        environment=environment(),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    with whole_file(page) as temporary:
        temporary.write_text(content, encoding="utf-8", errors="replace")  # names may not be valid UTF-8


def _other_rules(other: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Suffix for the label of another run: the evaluation rules that differ; empty if none do."""
    rules = ("dataset", "protocol", "junk", "metric", "ap")
    different = [f"{rule}: {other[rule]}" for rule in rules if other[rule] != result[rule]]
    return f" ({'; '.join(different)})" if different else ""


def _hardest(evaluated: Evaluated) -> list[int]:
    """Indices of the valid queries in ascending order of AP."""
    ap = evaluated.result.per_query["ap"]
    order = ap.argsort(stable=True).tolist()  # NaN (a query without a match) is sorted to the end
    return order[: evaluated.result.valid_queries]


def _picture(evaluated: Evaluated, hardest: list[int], files: Path) -> dict[int, str]:
    """Draw the attention for the hardest and for evenly spaced queries; returns query -> file name."""
    queries = evaluated.dataset.query
    spread = [number * len(queries) // (PICTURES // 2) for number in range(PICTURES // 2)]
    corruption = corruption_of(evaluated.recipe.eval, evaluated.dataset)
    pictures = {}
    for query in dict.fromkeys([*spread, *hardest[: PICTURES // 2]]):
        name = f"attention-{strip_name(queries[query]).removesuffix('.jpg')}.png"
        drawn = picture_attention(
            evaluated.model, evaluated.recipe, queries[query], files / name,
            frames=evaluated.frames, corruption=corruption,
        )  # fmt: skip
        if drawn is None:
            return {}
        pictures[query] = name
    return pictures


def _browsable(
    evaluated: Evaluated,
    lists: list[list[Listed]],
    attention: Mapping[int, str],
    folder: str,
    threshold: Threshold | None,
) -> dict[str, Any]:
    """Data for the script of the page. Rows are lists instead of objects to keep
    the page small.

    tracklets: [name, pid, camid, frames, file of the strip, frames in the strip];
    queries: index of the tracklet, ap, rank of the first hit, places as [tracklet, distance, kind, answer],
    attention picture.
    """
    data = evaluated.dataset
    numbers: dict[tuple[str, ...], int] = {}
    tracklets: list[list[str | int]] = []

    def number(tracklet: Tracklet) -> int:
        if tracklet.paths not in numbers:
            numbers[tracklet.paths] = len(tracklets)
            tracklets.append([
                tracklet.name, tracklet.pid, tracklet.camid, len(tracklet),
                strip_name(tracklet), strip_frames(tracklet),
            ])  # fmt: skip
        return numbers[tracklet.paths]

    ap, first = (evaluated.result.per_query[name].tolist() for name in ("ap", "first_hit"))
    queries = [
        {
            "tracklet": number(query),
            "ap": round(ap[row], 4) if first[row] else None,
            "first": first[row],
            "places": [
                [
                    number(data.gallery[index]),
                    round(distance, 5),
                    kind,
                    None if threshold is None else threshold.answer(distance),
                ]
                for index, distance, kind in places
            ],
            "attention": attention.get(row),
        }
        for row, (query, places) in enumerate(zip(data.query, lists, strict=True))
    ]
    return {"folder": folder, "tracklets": tracklets, "queries": queries}


def _decision_plot(decision: Decision) -> Markup | None:
    if decision.figures is None:
        return None
    figures, known = decision.figures, decision.threshold
    threshold = None if known is None else known.content["threshold"]
    return _inline(lambda path: plot_verification(figures, path, threshold=threshold), "decision")


def _training(logs: Mapping[str, Path]) -> Markup | None:
    """Curves of all loss terms of the first run, and of mAP if evaluated; None without a log."""
    if not logs:
        return None
    log = next(iter(logs.values())).read_text(encoding="utf-8").splitlines()
    steps = (line for line in map(json.loads, log) if line["kind"] == "step")
    terms = [name for name in next(steps, {}) if name not in _BOOKKEEPING]
    terms.sort(key=lambda name: name != "loss")
    return _inline(lambda path: plot_curves(logs, path, terms=terms), "training") if terms else None


def _inline(draw: Callable[[Path], Path], prefix: str) -> Markup:
    """A drawing as inline SVG with text elements, the text color of the page and no background."""
    colored = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    style: Any = {"svg.fonttype": "none", "savefig.transparent": True, **dict.fromkeys(colored, _INK)}
    with tempfile.TemporaryDirectory() as folder, matplotlib.rc_context(style):
        text = draw(Path(folder) / "drawing.svg").read_text(encoding="utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # IDs must be unique in the page, so each drawing gets its own prefix.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return Markup(text.replace(_INK, "currentColor"))
