"""What each choice of an evaluation protocol changes, from one extraction of the features."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vreid_ext import metrics
from vreid_ext.engine.search import read_split
from vreid_ext.features.stored import StoredFeatures, StoredRows
from vreid_ext.metrics.bootstrap import difference_of_means
from vreid_ext.metrics.cmc import rank1_variants
from vreid_ext.metrics.protocol import Protocol

_PAIRS = 2**22  # pairs of ranked lists in memory at once
_ROWS = 2**14  # rows of features in memory at once

# Published code, as read in its repository.
_TORCHREID = "torchreid metrics/rank.py"
_FAST_REID = "fast-reid evaluation/rank.py"
_OPEN_REID = "open-reid evaluation_metrics/ranking.py"
_MARS = "MARS-evaluation utils/evaluation_mars.m"
_ALL = ", ".join((_TORCHREID, _FAST_REID, _OPEN_REID, _MARS))
_DISTANCES = {
    "euclidean": "torchreid engine/engine.py (default), open-reid evaluators.py",
    "cosine": "fast-reid config/defaults.py (default)",
}
_CLIPS = {
    "evenly": "torchreid data/datamanager.py (default)",
    "dense": "Simple-CCReID test.py",
}
_TAGS = {
    "clothes": "Simple-CCReID and MEVID tools/eval_metrics.py",
    "location": "MEVID CAL/tools/eval_metrics.py",
    "scale": "MEVID CAL/tools/eval_metrics.py",
}
_OTHER_EXTRACTION = (
    "the clips of a tracklet: their mean, the first or the maximum over all frames (MARS-evaluation "
    "utils/process_box_feat.m) need another extraction: vreid extract CHECKPOINT --out OTHER "
    "eval.sampling=dense, then --beside OTHER"
)
_OLD = "features of an older version do not say whether the same camera is ignored; it is assumed"


class Choice(NamedTuple):
    """One changed choice of a protocol.

    Attributes:
        name: what is changed, and to what.
        used_by: the published code that makes this choice, "" if none is known.
        compute: returns the persons (Q,) of the queries and for "mAP" and "rank1" their values (Q,), NaN for
            a query that does not count.
    """

    name: str
    used_by: str
    compute: Callable[[], tuple[Tensor, dict[str, Tensor]]]


def audit_features(
    folder: str | Path,
    *,
    beside: Sequence[str | Path] = (),
    resamples: int = 2000,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate features by their own protocol, and with one choice of the protocol changed at a time.

    The choices: the gallery items that are removed (same camera, the query's camera for all persons, query
    tracklets, distractors, by tags such as the clothes), the definition of the average precision, queries
    without a match, the distance, re-ranking, several tracklets per query, and two other definitions of the
    CMC (`metrics.cmc`).

    Args:
        folder: folder of `vreid extract`.
        beside: folders with the features of the same tracklets by the same model from other clips, such as
            eval.sampling=dense. Each is one more choice.
        resamples: number of bootstrap resamples of the intervals.
        progress: called as `progress(choices_done, choices)`.

    Returns:
        A dict that can be written as JSON:

            features, dataset, protocol, metric, junk, junk_tags
            confidence      of the intervals
            missing         a line for each choice that the features do not allow
            rows            one dict for each choice; the first is the protocol of the data set

        A row contains choice, used_by, queries (the number that count), mAP and rank1 (fractions, None if the
        choice does not define it), and `difference`: for mAP and rank1 the value, low and high of the
        difference to the first row, with 95 % intervals of a bootstrap over persons.

    Raises:
        ValueError: the folder has no features or is damaged, the model has its own distance function, no
            query has a match, or a folder in `beside` is of other tracklets or of another model.
    """
    test = _read(folder)
    others = [(str(each), _read(each)) for each in beside]
    for name, other in others:
        _check_beside(test, name, other)
    choices = _choices(test, others)
    missing = [] if others else [_OTHER_EXTRACTION]
    if "junk" not in test.stored.manifest:
        missing.append(_OLD)
    own = f"own protocol, {test.metric} distance"
    pids, figures = test.figures()
    rows = [{"choice": own, "used_by": "", **_means(figures), "difference": {}}]
    for number, choice in enumerate(choices, start=1):
        try:
            changed_pids, changed = choice.compute()
        except _UnmatchedError:
            missing.append(f"{choice.name}: no query has a match")
        else:
            difference = {
                name: difference_of_means((figures[name], pids), (values, changed_pids), resamples=resamples)
                for name, values in changed.items()
            }
            intervals = {name: interval._asdict() for name, interval in difference.items()}
            rows.append(
                {"choice": choice.name, "used_by": choice.used_by, **_means(changed), "difference": intervals}
            )
        if progress is not None:
            progress(number, len(choices))
    return {
        "features": str(folder),
        "dataset": test.stored.manifest["identity"].get("dataset.name"),
        "protocol": test.stored.manifest.get("protocol"),
        "metric": test.metric,
        "junk": test.junk,
        "junk_tags": test.junk_tags,
        "confidence": 0.95,
        "missing": missing,
        "rows": rows,
    }


def _means(figures: dict[str, Tensor]) -> dict[str, Any]:
    values = figures["rank1"]
    means = {name: float(figures[name].nanmean()) if name in figures else None for name in ("mAP", "rank1")}
    return means | {"queries": int((~values.isnan()).sum())}


class _UnmatchedError(Exception):
    """No query has a match by the changed protocol."""


@dataclass(frozen=True)
class _Test:
    """A test set in a folder of features, and its protocol.

    Attributes:
        stored: the folder.
        rows: the features of all its tracklets.
        query, gallery: (Q,), (G,) numbers of rows.
        pids, camids, tags: labels of all rows.
        metric, junk, junk_tags: the protocol, see `TrackletDataset`.
    """

    stored: StoredFeatures
    rows: StoredRows
    query: Tensor
    gallery: Tensor
    pids: Tensor
    camids: Tensor
    tags: dict[str, Tensor]
    metric: str
    junk: bool
    junk_tags: dict[str, Literal["same", "other"]]

    def features(self, numbers: Tensor) -> StoredRows:
        return self.rows.take(numbers.numpy())

    def itself(self) -> Tensor:
        """(Q,) index of the query in the gallery, -1 if it is not there."""
        place = torch.full_like(self.pids, -1)
        place[self.gallery] = torch.arange(len(self.gallery), device="cpu")
        return place[self.query]

    def labels(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        of_query, of_gallery = self.query, self.gallery
        return self.pids[of_query], self.pids[of_gallery], self.camids[of_query], self.camids[of_gallery]

    def rules(self) -> dict[str, Any]:
        """The keyword arguments of `metrics.evaluate` and `Protocol` that say what is removed."""
        rules = [
            metrics.JunkRule(tag, self.tags[tag][self.query], self.tags[tag][self.gallery], remove)
            for tag, remove in self.junk_tags.items()
        ]
        return {"junk": self.junk, "rules": rules, "exclude": self.itself()}

    def check_matches(self) -> None:
        """Raise `_UnmatchedError` if no query has a match."""
        sizes = len(self.query), len(self.gallery)
        if not len(Protocol(*self.labels(), sizes=sizes, device=self.pids.device, **self.rules()).row):
            raise _UnmatchedError

    def figures(self, query: Tensor | None = None, **changes: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """`Choice.compute` by the arguments of `metrics.evaluate` in `changes`."""
        self.check_matches()
        result = metrics.evaluate(
            self.features(self.query) if query is None else query,
            self.features(self.gallery),
            *self.labels(),
            **{"metric": self.metric, **self.rules(), **changes},
        )
        hit = result.per_query["first_hit"]
        rank1 = (hit == 1).double().masked_fill(hit == 0, torch.nan)
        return self.pids[self.query], {"mAP": result.per_query["ap"], "rank1": rank1}


def _choices(test: _Test, others: Sequence[tuple[str, _Test]]) -> list[Choice]:
    """The choices that the features allow."""

    def changed(**fields: Any) -> Callable[[], tuple[Tensor, dict[str, Tensor]]]:
        return replace(test, **fields).figures

    inside = test.itself() >= 0
    known = torch.isin(test.pids[test.gallery], test.pids[test.query])
    other_metric = "euclidean" if test.metric == "cosine" else "cosine"
    choices = [
        Choice(
            "AP by trapezoids", "MARS-evaluation utils/compute_AP.m", partial(test.figures, ap="trapezoid")
        ),
        Choice("same camera kept", "", changed(junk=False))
        if test.junk
        else Choice("same camera removed", _ALL, changed(junk=True)),
        Choice(
            "query's camera removed for everyone", f"{_OPEN_REID} (cuhk03)", partial(_other_cameras, test)
        ),
    ]
    if inside.any():
        gallery = test.gallery[~torch.isin(test.gallery, test.query)]
        used_by = "torchreid data/datasets/video/mars.py"
        choices.append(Choice("query tracklets not in the gallery", used_by, changed(gallery=gallery)))
    if not inside.all():
        gallery = torch.cat([test.gallery, test.query[~inside].unique()])
        used_by = "MARS-evaluation test_mars.m"
        choices.append(Choice("query tracklets in the gallery", used_by, changed(gallery=gallery)))
    if not known.all():
        name = f"{int((~known).sum())} distractors removed"
        choices.append(Choice(name, "", changed(gallery=test.gallery[known])))
    choices += [
        Choice("unmatched queries count 0", _MARS, partial(_unmatched_as_zero, test)),
        Choice(
            f"{other_metric} distance", _DISTANCES[other_metric], partial(test.figures, metric=other_metric)
        ),
        Choice(
            "re-ranked",
            "options of torchreid utils/rerank.py, fast-reid evaluation/rerank.py",
            partial(test.figures, rerank=True),
        ),
        Choice(
            "query: mean over its person and camera",
            "multiple queries of Market-1501",
            partial(_multiple_queries, test),
        ),
        Choice("CMC of all shots", f"{_OPEN_REID} (allshots)", partial(_cmc_variant, test, 0)),
        Choice(
            "CMC of a single gallery shot",
            f"{_TORCHREID}, {_FAST_REID} (eval_cuhk03)",
            partial(_cmc_variant, test, 1),
        ),
    ]
    for tag, values in sorted(test.tags.items()):
        removals: tuple[Literal["same", "other"], ...] = ("same", "other")
        for remove in removals:
            if len(values.unique()) > 1 and test.junk_tags != {tag: remove}:
                name = f"{remove} {tag} removed"
                choices.append(Choice(name, _TAGS.get(tag, ""), changed(junk_tags={tag: remove})))
    if test.junk_tags:
        choices.append(Choice("tags ignored", "", changed(junk_tags={})))
    for name, other in others:
        sampling = other.stored.manifest["identity"].get("eval.sampling", "")
        frames = other.stored.manifest["identity"].get("eval.frames", "")
        choices.append(
            Choice(f"{sampling}, {frames} frames ({name})", _CLIPS.get(sampling, ""), other.figures)
        )
    return choices


def _other_cameras(test: _Test) -> tuple[Tensor, dict[str, Tensor]]:
    """Queries of one camera after another, against the items of the other cameras."""
    parts = []
    cameras = test.camids[test.query]
    for camera in cameras.unique():
        gallery = test.gallery[test.camids[test.gallery] != camera]
        part = replace(test, query=test.query[cameras == camera], gallery=gallery)
        if len(gallery):
            with suppress(_UnmatchedError):
                parts.append(part.figures())
    if not parts:
        raise _UnmatchedError
    pids, figures = zip(*parts, strict=True)
    return torch.cat(pids), {name: torch.cat([part[name] for part in figures]) for name in figures[0]}


def _unmatched_as_zero(test: _Test) -> tuple[Tensor, dict[str, Tensor]]:
    pids, figures = test.figures()
    return pids, {name: values.nan_to_num(0.0) for name, values in figures.items()}


def _multiple_queries(test: _Test) -> tuple[Tensor, dict[str, Tensor]]:
    """Replace each query by the mean over all tracklets of its person and camera.

    These are not matches: the protocol removes them, or they are the query itself.
    """
    numbers = torch.cat([test.query, test.gallery]).unique()
    key = torch.stack([test.pids[numbers], test.camids[numbers]], 1)
    group = key.unique(dim=0, return_inverse=True)[1]
    of_query = group[torch.searchsorted(numbers, test.query)]
    total: Tensor | None = None
    for first in range(0, len(numbers), _ROWS):
        some = slice(first, first + _ROWS)
        rows = torch.from_numpy(test.features(numbers[some])[:]).double()
        rows = F.normalize(rows, dim=1) if test.metric == "cosine" else rows
        if total is None:
            total = rows.new_zeros(int(group.max()) + 1, rows.shape[1])
        total.index_add_(0, group[some], rows)
    assert total is not None
    mean = total / torch.bincount(group)[:, None]
    return test.figures(query=mean[of_query].float())


def _cmc_variant(test: _Test, which: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Rank-1 by `rank1_variants`, all shots (0) or a single shot (1)."""
    rates = []
    block = max(1, _PAIRS // len(test.gallery))
    for first in range(0, len(test.query), block):
        part = replace(test, query=test.query[first : first + block])
        items, _ = metrics.rank(
            part.features(part.query), part.features(part.gallery), *part.labels(),
            top=len(part.gallery), metric=part.metric, **part.rules(),
        )  # fmt: skip
        rates.append(rank1_variants(items, *part.labels()[:2])[which])
    return test.pids[test.query], {"rank1": torch.cat(rates)}


def _read(folder: str | Path) -> _Test:
    split = read_split(folder, "query")
    stored = StoredFeatures(folder)
    tracklets = stored.manifest["tracklets"]

    def column(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device="cpu")

    names = set.intersection(*(set(each.get("tags", {})) for each in tracklets))
    test = _Test(
        stored=stored,
        rows=stored.rows(),
        query=column(stored.numbers("query")),
        gallery=column(stored.numbers("gallery")),
        pids=column([each["pid"] for each in tracklets]),
        camids=column([each["camid"] for each in tracklets]),
        tags={name: column([each["tags"][name] for each in tracklets]) for name in names},
        metric=split.metric,
        junk=stored.manifest.get("junk", True),
        junk_tags=stored.manifest.get("junk_tags", {}),
    )
    try:
        test.check_matches()
    except _UnmatchedError:
        raise ValueError(
            f"features: expected queries with a match in the gallery, got none in {str(folder)!r}"
        ) from None
    return test


def _check_beside(test: _Test, folder: str, other: _Test) -> None:
    """Check that the features in `folder` differ from those of `test` in their clips only."""
    labels = ("name", "pid", "camid")
    for split in ("query", "gallery"):
        a, b = (
            [[row[key] for key in labels] for row in each.stored.tracklets(split)] for each in (test, other)
        )
        if a != b:
            raise ValueError(
                f"beside: expected the {split} tracklets of the audited features, got others in {folder!r}"
            )
    for key in ("weights", "model"):
        a, b = (each.stored.manifest["identity"].get(key) for each in (test, other))
        if a != b:
            raise ValueError(f"beside: expected features of the same model, got another {key} in {folder!r}")
