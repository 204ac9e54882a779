"""The section of the report that says which distances mean the same person."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from vreid_ext import metrics
from vreid_ext.data import Tracklet
from vreid_ext.engine.checkpoint import resolve_checkpoint, run_folder
from vreid_ext.engine.comparison import Comparison, ids, metric_of, rules
from vreid_ext.engine.drift import Drift, drift, scores
from vreid_ext.engine.evaluate import Evaluated
from vreid_ext.engine.features import identity_of
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.search import Split
from vreid_ext.engine.threshold import Threshold, find_threshold, model_of_identity, read_threshold

_RESAMPLES = 300


class Known(NamedTuple):
    """The threshold for a run, or a notice why the one in its folder cannot be used."""

    threshold: Threshold | None = None
    notice: str = ""


class Decision(NamedTuple):
    """Figures of verification for the page, or the reason why there are none.

    Attributes:
        figures: with one operating point for the threshold, if there is one.
        threshold, notice: see `Known`.
        drifts: scores that are not those of the calibration.
        reason: empty if there are figures.
    """

    figures: metrics.Verification | None = None
    threshold: Threshold | None = None
    notice: str = ""
    drifts: tuple[Drift, ...] = ()
    reason: str = ""


def known_threshold(checkpoint: str | Path, overrides: Iterable[str], path: Path | None) -> Known:
    """The threshold at `path`, or that in the run's folder, for the features that an evaluation will compare.

    Raises:
        ValueError: the threshold at `path` is for another model or metric, or is damaged.
    """
    found = path
    if path is None:
        found = run_folder(resolve_checkpoint(Path(checkpoint)))
        try:
            threshold = find_threshold(found)
        except ValueError as error:
            return Known(notice=str(error))
        if threshold is None:
            return Known()
    else:
        threshold = read_threshold(path)
    model, recipe, _ = open_checkpoint(checkpoint, overrides)
    metric = metric_of(model, recipe)
    name = "the model's own" if callable(metric) else f"{'re-ranked ' * recipe.eval.rerank}{metric}"
    identity = model_of_identity(identity_of(model, recipe, recipe.eval.frames[0], []))
    try:
        threshold.check(identity, name, threshold.content["dimensions"])
    except ValueError as error:
        if path is not None:
            raise
        return Known(notice=str(error))
    return Known(threshold)


def decide(evaluated: Evaluated, known: Known) -> Decision:
    """Verification figures of the query and gallery of an evaluation, in the distance of its ranked lists."""
    metric = metric_of(evaluated.model, evaluated.recipe)
    if callable(metric):
        return Decision(reason="the model has its own distance function")
    if evaluated.recipe.eval.rerank:
        return Decision(reason="a re-ranked distance depends on the other tracklets of the gallery")
    data, threshold = evaluated.dataset, known.threshold
    q_pids, g_pids, q_camids, g_camids = ids(data)
    try:
        figures = metrics.verification(
            evaluated.query, q_pids, q_camids,
            gallery=evaluated.gallery, g_pids=g_pids, g_camids=g_camids, exclude=evaluated.itself,
            metric=metric, junk=data.junk, rules=rules(data), resamples=_RESAMPLES,
            at=[] if threshold is None else [threshold.value],
        )  # fmt: skip
    except ValueError as error:  # too few persons, or features that are not finite
        return Decision(reason=str(error))
    drifts: tuple[Drift, ...] = ()
    if threshold is not None:
        found = scores(*_splits(evaluated, metric))
        drifts = tuple(
            each
            for each in drift(found, threshold.content["scores"], threshold.content["persons"])
            if each.drifted
        )
    return Decision(figures, threshold, known.notice, drifts)


def percent(rate: float) -> str:
    """A rate in percent with two digits, also a very small one."""
    return f"{100 * rate:.2g} %"


def interval_percent(interval: metrics.Interval) -> str:
    """A rate with its interval in percent, with two digits each."""
    value, low, high = (f"{100 * each:.2g}" for each in interval)
    return f"{value} [{low}, {high}]"


def _splits(evaluated: Evaluated, metric: str) -> tuple[Split, Split]:
    data, test = evaluated.dataset, Comparison(evaluated.dataset)

    def split(rows: Tensor, tracklets: Sequence[Tracklet], numbers: list[int]) -> Split:
        named = [{"name": each.name, "pid": each.pid, "camid": each.camid} for each in tracklets]
        return Split(rows, named, metric, Path(), numbers)

    return (
        split(evaluated.query, data.query, test.query),
        split(evaluated.gallery, data.gallery, test.gallery),
    )
