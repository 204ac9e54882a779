"""Whether distances still have the distribution they had when a threshold was calibrated."""

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from vreid_ext.engine.search import Split, search
from vreid_ext.metrics.pairs import distances
from vreid_ext.metrics.ranking import pair

LEAST = 0.1  # a smaller difference is never drift, however many queries show it
_LEVEL = 0.001  # probability that a limit is exceeded without drift, for independent queries
_STORED = 1000  # quantiles of a distribution


class Drift(NamedTuple):
    """Two-sample Kolmogorov-Smirnov statistic of one kind of score.

    Attributes:
        kind: "best" or "random", see `Scores`.
        statistic: largest difference of the two cumulative distributions, from 0 to 1.
        limit: statistics above it are drift.
        queries: number of queries whose scores were compared.
        now, calibrated: medians of the two distributions.
    """

    kind: str
    statistic: float
    limit: float
    queries: int
    now: float
    calibrated: float

    @property
    def drifted(self) -> bool:
        return self.statistic > self.limit

    def __str__(self) -> str:
        of = "to the nearest tracklet" if self.kind == "best" else "to a random tracklet"
        return (
            f"distances {of} are not those of the calibration: two-sample statistic {self.statistic:.2f}, "
            f"limit {self.limit:.2f}; median {self.now:.3f}, in the calibration {self.calibrated:.3f}"
        )


class Scores(NamedTuple):
    """Distances that need no labels, one for each query.

    Attributes:
        best: distance to the nearest gallery tracklet other than the query itself, as `search` finds it.
        random: distance to one gallery tracklet other than the query itself, drawn from a fixed seed. It does
            not depend on the size of the gallery.
    """

    best: list[float]
    random: list[float]


class DriftMonitor:
    """Compares the scores of the last 1,000 queries of successive searches with stored ones. Thread-safe.

    Args:
        stored, persons: see `drift`.
    """

    def __init__(self, stored: Mapping[str, Sequence[float]], persons: int) -> None:
        self._stored, self._persons = stored, persons
        self._recent = {kind: deque[float](maxlen=_STORED) for kind in Scores._fields}
        self._drifted: set[str] = set()
        self._lock = threading.Lock()
        self.queries = 0

    def add(self, found: Scores) -> list[Drift]:
        """Add the scores of a search. Returns what has drifted and had not before this search."""
        with self._lock:
            for kind, values in found._asdict().items():
                self._recent[kind].extend(values)
            self.queries += len(found.best)
            recent = Scores(*(list(self._recent[kind]) for kind in Scores._fields))
            now = [each for each in drift(recent, self._stored, self._persons) if each.drifted]
            new = [each for each in now if each.kind not in self._drifted]
            self._drifted = {each.kind for each in now}
        return new


def scores(
    query: Split, gallery: Split, lists: Sequence[Mapping[str, Any]] | None = None, *, seed: int = 0
) -> Scores:
    """The scores of a search.

    Args:
        lists: the result of `search` with `top` of at least 1; None: search.
        seed: seed of the random gallery tracklets.
    """
    lists = search(query, gallery, 1) if lists is None else lists
    best = [entry["nearest"][0]["distance"] for entry in lists if entry["nearest"]]
    return Scores(best, _random_distances(query, gallery, seed))


def stored_scores(found: Scores) -> dict[str, list[float]]:
    """Scores for a JSON file: at most 1,000 evenly spaced order statistics of each kind."""
    return {kind: _reduced(values) for kind, values in found._asdict().items()}


def drift(found: Scores, stored: Mapping[str, Sequence[float]], persons: int) -> list[Drift]:
    """Compare scores with stored ones.

        D = max_x |F_now(x) - F_calibrated(x)|,  limit = max(0.1, sqrt(-ln(0.001 / 2) / 2 (1/n + 1/m)))

    n is the number of queries and m the number of persons of the calibration, because tracklets of one person
    are not independent. With few queries the limit is high: a single one is never drift.

    Source: Smirnov (1948), Table for estimating the goodness of fit, Ann. Math. Stat. 19(2).
    """
    result = []
    for kind, values in found._asdict().items():
        if not values or not stored[kind]:
            continue
        now, then = (torch.tensor(each, dtype=torch.float64).sort().values for each in (values, stored[kind]))
        every = torch.cat([now, then])
        shares = [torch.searchsorted(each, every, right=True) / len(each) for each in (now, then)]
        limit = math.sqrt(-math.log(_LEVEL / 2) / 2 * (1 / len(now) + 1 / persons))
        statistic = float((shares[0] - shares[1]).abs().max())
        middle = float(now.median()), float(then.median())
        result.append(Drift(kind, statistic, max(LEAST, limit), len(now), *middle))
    return result


def _random_distances(query: Split, gallery: Split, seed: int) -> list[float]:
    queries, items = pair(query.features, gallery.features)
    generator = torch.Generator("cpu").manual_seed(seed)
    index = torch.randint(len(items), (len(queries),), generator=generator, device="cpu")
    row = torch.arange(len(queries), device="cpu")
    if query.folder == gallery.folder:
        mine, theirs = (
            torch.tensor(split.numbers or range(len(split.tracklets)), dtype=torch.int64, device="cpu")
            for split in (query, gallery)
        )
        other = mine != theirs[index]
        row, index = row[other], index[other]
    rows = queries[:].to(torch.promote_types(queries.dtype, items.dtype))
    found: list[float] = distances(rows, items, row, index, query.metric).tolist()
    return found


def _reduced(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    if len(ordered) <= _STORED:
        return ordered
    return [ordered[round(place * (len(ordered) - 1) / (_STORED - 1))] for place in range(_STORED)]
