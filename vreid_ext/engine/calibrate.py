"""Choice of a threshold for a false-match rate, from features of persons that are known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vreid_ext import _checks, metrics
from vreid_ext.engine.drift import scores, stored_scores
from vreid_ext.engine.search import Split, read_split
from vreid_ext.engine.threshold import NAME, model_of_identity, write_threshold
from vreid_ext.features.format import digest
from vreid_ext.metrics.verify import FPRS, LEAST, Verification, is_resolved, pair_set

_TABLE_OF_CAMERAS = 16  # more cameras give no table


def calibrate(
    folder: str | Path,
    fmr: float,
    *,
    out: Path | None = None,
    resamples: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], Verification]:
    """Choose the threshold for a false-match rate, and write it as JSON (`engine.threshold`).

    The pairs are those of query and gallery, as `metrics.verification` counts them with `exclude`.

    Args:
        folder: a folder of `export_features` whose tracklets have persons.
        fmr: the false-match rate, between 0 and 1.
        out: the file, or an existing folder for threshold.json, such as that of the run; default: `folder`.
        resamples: as in `metrics.verification`.
        progress: called as `progress(queries_done, queries)`.

    Returns:
        The content of the file with `file`, and the figures.

    Raises:
        ValueError: the number of impostor pairs does not resolve the rate, there is no genuine or no impostor
            pair, a row is not finite, or the features have no metric. Nothing is written.
    """
    fmr = _checks.real("fmr", fmr)
    if not 0 < fmr < 1:
        raise ValueError(f"fmr: expected a rate between 0 and 1, exclusive, got {fmr}")
    query, gallery = read_split(folder, "query"), read_split(folder, "gallery")
    assert query.manifest is not None
    labels = labelled(query, gallery)
    impostors = pair_set(**labels, metric=query.metric).impostors
    if not is_resolved(fmr, impostors):
        raise ValueError(
            f"fmr: expected at least {LEAST / impostors:.2g} for {impostors} impostor pairs ({LEAST} false "
            f"matches), got {fmr:g}"
        )
    cameras = {each["camid"] for split in (query, gallery) for each in split.tracklets}
    figures = metrics.verification(
        **labels, metric=query.metric, fprs=sorted({fmr, *FPRS}, reverse=True),
        by_camera=len(cameras) <= _TABLE_OF_CAMERAS, resamples=resamples, progress=progress,
    )  # fmt: skip
    point = figures.point(fmr)
    if point.threshold.value < 0:
        share = float(figures.false_matches[0]) / impostors
        raise ValueError(
            f"fmr: expected a rate of at least {share:.2g}, because that many impostor pairs have equal "
            f"features, got {fmr:g}"
        )
    # In a resample without a match the threshold is -infinity; only equal features are nearer than 0.
    threshold = point.threshold._replace(low=max(0.0, point.threshold.low))
    content = {
        "threshold": threshold._asdict(),
        "asked": fmr,
        "fmr": point.fmr._asdict(),
        "fnmr": point.fnmr._asdict(),
        "confidence": figures.confidence,
        "genuine": figures.genuine,
        "impostors": figures.impostors,
        "persons": figures.persons,
        "metric": query.metric,
        "dimensions": query.features.shape[1],  # type: ignore[union-attr]
        "model": model_of_identity(query.manifest["identity"]),
        "features": digest(query.manifest),
        "dataset": query.manifest["identity"].get("dataset.name"),
        "protocol": figures.protocol,
        "scores": stored_scores(scores(query, gallery)),
    }
    file = Path(folder) / NAME if out is None else out / NAME if out.is_dir() else out
    file.parent.mkdir(parents=True, exist_ok=True)
    write_threshold(file, content)
    return {**content, "file": str(file)}, figures


def labelled(query: Split, gallery: Split) -> dict[str, Any]:
    """Arguments of `metrics.verification` for two splits of one folder."""
    pids, camids, g_pids, g_camids = (
        torch.tensor([each[key] for each in split.tracklets], dtype=torch.int64, device="cpu")
        for split in (query, gallery)
        for key in ("pid", "camid")
    )
    place = {number: index for index, number in enumerate(gallery.numbers or range(len(g_pids)))}
    numbers = query.numbers or range(len(pids))
    exclude = torch.tensor([place.get(number, -1) for number in numbers], dtype=torch.int64, device="cpu")
    return {
        "features": query.features,
        "pids": pids,
        "camids": camids,
        "gallery": gallery.features,
        "g_pids": g_pids,
        "g_camids": g_camids,
        "exclude": exclude,
    }
