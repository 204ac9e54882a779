"""Figures of runs with confidence intervals, and their differences to the first run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vreid_ext import metrics
from vreid_ext.engine.figures import read_queries, read_result

SAME = ("protocol", "junk", "ap")  # what two results must agree on to be comparable
FIGURES = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "rank20": "rank-20"}


def runs_of(argument: str) -> tuple[str, list[Path]]:
    """(label, runs) of an argument of `vreid compare`: RUN, a folder of runs, or LABEL=RUN,RUN,RUN.

    A run is a finished run's folder or the JSON of `vreid eval`. The runs of a folder are its subfolders with
    a result.json.

    Raises:
        ValueError: a path that is none of these.
    """
    label, equals, paths = argument.partition("=")
    if not equals or Path(argument).exists():
        return argument, _expanded(Path(argument))
    if not label or not all(paths.split(",")):
        raise ValueError(f"runs: expected RUN or LABEL=RUN,RUN, got {argument!r}")
    return label, [run for path in paths.split(",") for run in _expanded(Path(path))]


def compare_runs(
    rows: Mapping[str, Sequence[Path]], *, resamples: int = 10_000, paired: bool = False
) -> dict[str, Any]:
    """Figures of each row with intervals, and the difference of every later row to the first.

    Args:
        rows: label -> runs that differ in their seed only; at least two labels. A run is a finished run's
            folder or the JSON of `vreid eval`. If an evaluation has several rows (test lengths, data sets),
            the first rows are compared with each other, the second ones, and so on.
        resamples, paired: as in `metrics.compare`, which also describes the intervals.

    Returns:
        A JSON-ready dict: confidence, resamples, `rows` (label, runs, frames, `dataset` where a result has
        several, queries, persons, and mAP, rank1, rank5, rank10, rank20 as value, low and high, fractions)
        and `differences` (label, to, frames, dataset, queries, persons, and the figures with `decided`,
        whether zero is outside the interval).

    Raises:
        ValueError: fewer than two rows; results without figures of each query; results with another
            protocol, other rows or other queries than the first one.
    """
    if len(rows) < 2:
        raise ValueError(f"runs: expected at least two rows to compare, got {len(rows)}")
    first, *others = rows
    evaluations = {label: [_Evaluation(run) for run in runs] for label, runs in rows.items()}
    reference = evaluations[first][0]
    for evaluation in (each for side in evaluations.values() for each in side):
        evaluation.check_comparable(reference)
    shown: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for number, queries in enumerate(reference.queries):
        for other in others:
            a, b = ([each.queries[number] for each in evaluations[label]] for label in (first, other))
            compared = metrics.compare(a, b, queries["pid"], resamples=resamples, paired=paired)
            counts = {"queries": compared.queries, "persons": compared.persons}
            sides = {first: compared.a} if other == others[0] else {}
            for label, figures in {**sides, other: compared.b}.items():
                facts = evaluations[label][0].facts(number) | counts
                intervals = {name: interval._asdict() for name, interval in figures.items()}
                shown.append({"label": label, "runs": [*map(str, rows[label])], **facts, **intervals})
            facts = {"label": other, "to": first, **evaluations[other][0].facts(number), **counts}
            differences.append(facts | {
                name: {**interval._asdict(), "decided": interval.decided}
                for name, interval in compared.difference.items()
            })  # fmt: skip
    return {"confidence": 0.95, "resamples": resamples, "rows": shown, "differences": differences}


def differences_or_reason(rows: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """`differences` of `compare_runs`, or label, to and `reason` if the rows cannot be compared."""
    try:
        differences: list[dict[str, Any]] = compare_runs(rows)["differences"]
    except ValueError as error:
        first, *others = rows
        return [{"label": label, "to": first, "reason": str(error)} for label in others]
    return differences


def in_percent(figure: Mapping[str, Any]) -> str:
    """A figure with its interval in percent; of a difference also its sign and whether it is decided."""
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    if "decided" not in figure:
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]{'' if figure['decided'] else ' not decided'}"


def summary(difference: Mapping[str, Any]) -> str:
    """One line with the difference of mAP and rank-1 in percent, or the reason why there is no interval."""
    name = f"{difference['label']} minus {difference['to']}"
    if "reason" in difference:
        return f"{name}: no interval: {difference['reason']}"
    place = f", {difference['dataset']}" if "dataset" in difference else ""
    figures = ", ".join(f"{FIGURES[figure]} {in_percent(difference[figure])}" for figure in ("mAP", "rank1"))
    numbers = f"{difference['queries']} queries of {difference['persons']} persons"
    return f"{name}{place}: {figures} ({numbers}; 95 % intervals)"


class _Evaluation:
    """A result and the figures of its queries."""

    def __init__(self, run: Path) -> None:
        self.run, self.result, self.queries = run, read_result(run), read_queries(run)

    def facts(self, number: int) -> dict[str, Any]:
        row = self.result["rows"][number]
        return {name: row[name] for name in ("dataset", "frames") if name in row}

    def check_comparable(self, other: "_Evaluation") -> None:
        where = f"runs: expected {{}} as in {str(other.run)!r}, got {{}} in {str(self.run)!r}"
        for name in SAME:
            if self.result[name] != other.result[name]:
                raise ValueError(where.format(f"{name} {other.result[name]!r}", repr(self.result[name])))
        if len(self.queries) != len(other.queries):
            raise ValueError(where.format(f"{len(other.queries)} rows", len(self.queries)))
        for mine, theirs in zip(self.queries, other.queries, strict=True):
            for name in ("name", "pid"):
                if mine[name] != theirs[name]:
                    raise ValueError(where.format("the queries", f"another list of {name}s"))


def _expanded(path: Path) -> list[Path]:
    runs = sorted(file.parent for file in path.glob("*/result.json"))
    return runs if runs and not (path / "result.json").is_file() else [path]
