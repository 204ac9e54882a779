"""Verification: do two tracklets show the same person? ROC, operating points, open-set identification."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.features.rows import Features, Rows
from vreid_ext.metrics.bootstrap import Interval
from vreid_ext.metrics.open_set import searches
from vreid_ext.metrics.pair_bootstrap import Figures, Resampled, intervals
from vreid_ext.metrics.pairs import ROUNDING, PairSet, Progress, Sampler, Thresholds
from vreid_ext.metrics.protocol import JunkRule, Labels, labels
from vreid_ext.metrics.ranking import pair

LEAST = 10  # false matches, below which a rate is not resolved
FPRS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
FPIRS = (1e-1, 1e-2)
_BINS = 200
_MOST_CAMERAS = 64


class OperatingPoint(NamedTuple):
    """Rates at one threshold. Two tracklets match if their distance is at most the threshold.

    Attributes:
        fpr: the false-match rate that was asked for; None for a given threshold.
        threshold: distance, with the interval of the threshold that the resamples choose for `fpr`. The
            bounds of a given threshold are the threshold itself.
        fmr: false-match rate at the threshold, with its interval at this threshold.
        tpr: fraction of genuine pairs that match. The interval for `fpr` is over resamples that choose their
            own threshold.
        fnmr: fraction of genuine pairs that do not match (misses), with its interval at this threshold.
    """

    fpr: float | None
    threshold: Interval
    fmr: Interval
    tpr: Interval
    fnmr: Interval


class CameraPair(NamedTuple):
    """Pairs of two cameras, in either order.

    Attributes:
        cameras: the two camids, the smaller one first.
        genuine, impostors: number of pairs.
        fmr, fnmr: rates at the threshold of each operating point; NaN without pairs.
    """

    cameras: tuple[int, int]
    genuine: int
    impostors: int
    fmr: list[float]
    fnmr: list[float]


@dataclass(frozen=True)
class Verification:
    """Result of `verification`. Rates are fractions; `str()` gives the operating points in percent.

    Attributes:
        genuine, impostors: number of pairs of one person and of different persons.
        persons: number of persons with a query, the units of the bootstrap.
        thresholds: (m,) float64, ascending: all distances of genuine pairs, the edges of the histograms and
            the given thresholds.
        false_matches: (m,) int64, impostor pairs with a distance of at most each threshold.
        false_matches_below: (m,) int64, impostor pairs with a smaller distance.
        true_matches: (m,) int64, genuine pairs with a distance of at most each threshold.
        points: operating points: one for each resolved `fprs`, then one for each of `at`.
        unresolved: the `fprs` and `fpirs` that would have fewer than 10 false matches or false alarms.
        eer: equal error rate.
        identification: FPIR -> DIR for each resolved `fpirs`, with intervals.
        histogram_edges: (b+1,) float64; genuine_histogram, impostor_histogram: (b,) int64, pairs with a
            distance above an edge and at most the next one. The first bin includes its lower edge.
        cameras: figures of each pair of cameras, with `by_camera=True`.
        confidence: probability that the intervals are made for.
        protocol: text with the metric and the pairs that were left out.
    """

    genuine: int
    impostors: int
    persons: int
    thresholds: Tensor = field(repr=False)
    false_matches: Tensor = field(repr=False)
    false_matches_below: Tensor = field(repr=False)
    true_matches: Tensor = field(repr=False)
    points: list[OperatingPoint]
    unresolved: dict[str, list[float]]
    eer: Interval
    identification: dict[float, Interval]
    histogram_edges: Tensor = field(repr=False)
    genuine_histogram: Tensor = field(repr=False)
    impostor_histogram: Tensor = field(repr=False)
    cameras: list[CameraPair] = field(repr=False)
    confidence: float
    protocol: str

    def roc(self) -> tuple[Tensor, Tensor]:
        """(FPR, TPR), (2m+1,) float64: the corners of the exact curve, from (0, 0) to the last threshold.

        The curve goes right from a genuine distance to just before the next one, and then to that one.
        """
        zero = self.true_matches.new_zeros(1)
        false = torch.stack([self.false_matches_below, self.false_matches], 1).flatten()
        before = torch.cat([zero, self.true_matches[:-1]])
        true = torch.stack([before, self.true_matches], 1).flatten()
        return torch.cat([zero, false]).double() / self.impostors, torch.cat(
            [zero, true]
        ).double() / self.genuine

    def point(self, fpr: float) -> OperatingPoint:
        """The operating point of one of the resolved `fprs`."""
        for each in self.points:
            if each.fpr == fpr:
                return each
        known = ", ".join(f"{each.fpr:g}" for each in self.points if each.fpr is not None)
        raise ValueError(f"fpr: expected one of {known or 'none'}, got {fpr:g}")

    def __str__(self) -> str:
        rates = [
            f"TPR {100 * each.tpr.value:.1f} at FPR {100 * each.fpr:g}"
            for each in self.points
            if each.fpr is not None
        ]
        rates.append(f"EER {100 * self.eer.value:.2f}")
        rates += [
            f"DIR {100 * rate.value:.1f} at FPIR {100 * fpir:g}" for fpir, rate in self.identification.items()
        ]
        counts = f"{self.genuine} genuine and {self.impostors} impostor pairs"
        return f"{'  '.join(rates)}  ({counts}; {self.protocol})"


def verification(
    features: Rows,
    pids: Labels,
    camids: Labels,
    *,
    gallery: Rows | None = None,
    g_pids: Labels | None = None,
    g_camids: Labels | None = None,
    exclude: Labels | None = None,
    metric: str = "cosine",
    junk: bool = True,
    rules: Sequence[JunkRule] = (),
    fprs: Sequence[float] = FPRS,
    fpirs: Sequence[float] = FPIRS,
    at: Sequence[float] = (),
    by_camera: bool = False,
    confidence: float = 0.95,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Verification:
    """ROC, operating points, equal error rate and open-set identification, exact and in bounded memory.

    A genuine pair are two tracklets of one person, an impostor pair two tracklets of different persons. With
    G genuine and I impostor pairs at the distances d of `ops.pair_distances`,

        TPR(t) = #{genuine, d <= t} / G = 1 - FNMR(t)        FMR(t) = FPR(t) = #{impostor, d <= t} / I
        TPR at FPR f = max {TPR(t) : FPR(t) <= f}            EER: FNMR = FMR on the ROC curve

    The threshold of an operating point is the largest of `Verification.thresholds` with FPR(t) <= f. Because
    TPR changes at genuine distances only, the counts at these give the whole curve. Every pair is counted:
    as a tile of a float64 matrix product, and by `ops.pair_distances` where its rounding error could matter.
    The memory in addition to the features is O(G) and a few tiles.

    A rate f is resolved if f I >= 10. With fewer false matches, their number is mostly chance. Rates that are
    not resolved are listed in `unresolved`.

    Pairs are left out by the rules of `evaluate`: a tracklet with itself, pid -1, and with `junk` two
    tracklets of one person from one camera. Different persons of one camera are an impostor pair. A pair of
    two queries that are both in the gallery counts once.

    Open-set identification (Phillips et al.): with g the distance from a query to the nearest gallery item of
    its person, and n to the nearest item of another person (`ops.top_k`),

        FPIR(t) = #{queries, n <= t} / Q          the search of a person who is not in the gallery
        DIR(t) = #{queries, g < n and g <= t} / #{queries with a match in the gallery}

    DIR at FPIR f takes the largest t with FPIR(t) <= f, which is resolved if f Q >= 10.

    Intervals are percentile intervals of a bootstrap over persons. A person that is drawn w times enters its
    genuine pairs w times, and an impostor pair of persons p and q counts w_p w_q times. Gallery persons
    without a query count once in every resample; the distractors of MARS share one pid. The gallery of
    open-set identification is fixed. If there are more than 2^17 impostor pairs, the resamples use the 2^17
    nearest and 2^17 drawn at random from the others; the figures themselves use all.

    Args:
        features: floating-point features (N,D) of the queries: a torch tensor, a NumPy or memory-mapped
            array, or the path of a `.npy` file. Their rows are read into memory.
        pids: (N,) integer identities.
        camids: (N,) integer cameras.
        gallery: features (G,D), likewise, of which a file is read in chunks. None: all pairs of `features`.
        g_pids, g_camids: (G,) identities and cameras of the gallery, required with `gallery`.
        exclude: (N,) index of the gallery item that is the query itself, -1 if there is none.
        metric: "cosine" or "euclidean".
        junk: leave out pairs of one person from one camera.
        rules: leave out further pairs of one person, see `evaluate`.
        fprs: false-match rates, between 0 and 1.
        fpirs: rates of false alarms in open-set identification, between 0 and 1.
        at: thresholds (distances) for more operating points.
        by_camera: count the rates at the operating points for each pair of at most 64 cameras; reads the
            pairs a second time.
        confidence: between 0 and 1, exclusive.
        resamples: number of resamples, at least 1.
        generator: a CPU generator for the draws; None: a generator with seed 0.
        progress: called as `progress(queries_done, queries)`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value, a row is not finite, or there is no
            genuine pair, no impostor pair or only one person.

    Source: Phillips, Grother and Micheals (2011), Evaluation Methods in Face Recognition, section 21.2.
    Resampling both persons of a pair: Owen (2007), The pigeonhole bootstrap, Ann. Appl. Stat. 1(2).
    """
    fprs, fpirs = _rates("fprs", fprs), _rates("fpirs", fpirs)
    at = _numbers("at", at)
    _checks.choice("metric", metric, ("cosine", "euclidean"))
    _checks.flag("junk", junk)
    _checks.flag("by_camera", by_camera)
    if not 0 < _checks.real("confidence", confidence) < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, exclusive, got {confidence}")
    resamples = _checks.integer("resamples", resamples, 1)
    if generator is None:
        generator = torch.Generator("cpu").manual_seed(0)
    pairs = pair_set(
        features, pids, camids, gallery=gallery, g_pids=g_pids, g_camids=g_camids, exclude=exclude,
        metric=metric, junk=junk, rules=rules,
    )  # fmt: skip
    cameras = _cameras(pairs) if by_camera else None
    largest = pairs.largest_norms()
    pairs.measure()
    top = 2.0 if metric == "cosine" else largest
    edges = torch.linspace(0, top, _BINS + 1, dtype=torch.float64, device="cpu")
    edges[-1] *= 1 + 2.0**-40  # a distance may exceed the largest one by a rounding error
    edges = edges.to(pairs.distance)
    values = torch.cat([pairs.distance, edges, pairs.distance.new_tensor(at)]).unique()
    thresholds, sampler = Thresholds(pairs, values, largest), Sampler(pairs, generator)
    counts = thresholds.counts(progress, sampler.look)
    false = counts.cumsum(0)
    true = torch.searchsorted(pairs.distance, values, right=True)
    resolved = [fpr for fpr in fprs if is_resolved(fpr, pairs.impostors)]
    allowed = [fpr * pairs.impostors * (1 + ROUNDING) for fpr in resolved]
    places = [int((false[1::2] <= most).sum()) - 1 for most in allowed]
    places += torch.searchsorted(values, values.new_tensor(at)).tolist()
    found = searches(pairs)
    alarms = tuple(fpir for fpir in fpirs if is_resolved(fpir, len(found.person)))
    curve = Figures(values.cpu(), false[::2][:-1].cpu(), false[1::2].cpu(), true.cpu())
    drawn = intervals(
        pairs, curve, sampler.sample(), thresholds, found,
        fprs=resolved, places=places, fpirs=alarms,
        confidence=confidence, resamples=resamples, generator=generator,
    )  # fmt: skip
    return Verification(
        genuine=len(pairs.row),
        impostors=pairs.impostors,
        persons=pairs.persons,
        thresholds=curve.values,
        false_matches=curve.false,
        false_matches_below=curve.false_below,
        true_matches=curve.true,
        points=_points(drawn, resolved),
        unresolved={
            "fprs": [fpr for fpr in fprs if fpr not in resolved],
            "fpirs": [fpir for fpir in fpirs if fpir not in alarms],
        },
        eer=drawn.eer,
        identification=dict(zip(alarms, drawn.detection, strict=True)),
        histogram_edges=edges.cpu(),
        **_histograms(curve, edges.cpu()),
        cameras=[] if cameras is None else _by_camera(pairs, values[places], largest, cameras),
        confidence=float(confidence),
        protocol=_protocol(pairs, metric, junk),
    )


def pair_set(
    features: Rows,
    pids: Labels,
    camids: Labels,
    *,
    gallery: Rows | None = None,
    g_pids: Labels | None = None,
    g_camids: Labels | None = None,
    exclude: Labels | None = None,
    metric: str = "cosine",
    junk: bool = True,
    rules: Sequence[JunkRule] = (),
) -> PairSet:
    """The pairs that `verification` compares, from its arguments.

    Raises:
        TypeError, ValueError: as `verification`.
    """
    given = Features("features", features)
    pids, camids = (
        labels(name, value, len(given), given.device) for name, value in (("pids", pids), ("camids", camids))
    )
    if gallery is None:
        for name, value in (("g_pids", g_pids), ("g_camids", g_camids), ("exclude", exclude)):
            if value is not None:
                raise ValueError(f"{name}: expected None without a gallery, got {type(value).__name__}")
        queries = items = given
        g_pids, g_camids, exclude = pids, camids, torch.arange(len(given), device="cpu")
    else:
        if g_pids is None or g_camids is None:
            name = "g_pids" if g_pids is None else "g_camids"
            raise ValueError(f"{name}: expected the labels of the gallery, got None")
        queries, items = pair(features, gallery)
    pairs = PairSet(
        queries, items, pids, g_pids, camids, g_camids,
        metric=metric, junk=junk, exclude=exclude, rules=rules,
    )  # fmt: skip
    if not len(pairs.row):
        rule = ", from different cameras" if junk else ""
        raise ValueError(f"pids: expected a genuine pair (two tracklets of one person{rule}), got none")
    if not pairs.impostors:
        raise ValueError("pids: expected an impostor pair (tracklets of two persons), got none")
    if pairs.persons < 2:
        raise ValueError(f"pids: expected queries of at least 2 persons, got {pairs.persons}")
    return pairs


def is_resolved(rate: float, trials: int) -> bool:
    """Whether a rate corresponds to at least 10 of the trials."""
    return rate * trials * (1 + ROUNDING) >= LEAST


def _rates(name: str, values: Any) -> list[float]:
    rates = _numbers(name, values)
    for number, rate in enumerate(rates):
        if not 0 < rate < 1:
            raise ValueError(f"{name}[{number}]: expected a rate between 0 and 1, exclusive, got {rate:g}")
    return rates


def _numbers(name: str, values: Any) -> list[float]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name}: expected a sequence of numbers, got {type(values).__name__}")
    return [_checks.real(f"{name}[{number}]", value) for number, value in enumerate(values)]


def _points(drawn: Resampled, fprs: Sequence[float]) -> list[OperatingPoint]:
    given = [None] * (len(drawn.fmr) - len(fprs))
    rows = zip([*fprs, *given], drawn.threshold, drawn.fmr, drawn.tpr, drawn.fnmr, strict=True)
    return [OperatingPoint(*row) for row in rows]


def _histograms(curve: Figures, edges: Tensor) -> dict[str, Tensor]:
    place = torch.searchsorted(curve.values, edges)
    histograms = {}
    for name, counts in (("genuine_histogram", curve.true), ("impostor_histogram", curve.false)):
        at_edge = counts[place].clone()
        at_edge[0] = 0  # the first bin includes pairs at its lower edge
        histograms[name] = at_edge.diff()
    return histograms


def _cameras(pairs: PairSet) -> Tensor:
    cameras = torch.cat([pairs.q_camera, pairs.g_camera]).unique()
    if len(cameras) > _MOST_CAMERAS:
        raise ValueError(
            f"camids: expected at most {_MOST_CAMERAS} cameras for by_camera, got {len(cameras)}"
        )
    return cameras


def _by_camera(pairs: PairSet, at: Tensor, largest: float, cameras: Tensor) -> list[CameraPair]:
    q_camera = torch.searchsorted(cameras, pairs.q_camera)
    g_camera = torch.searchsorted(cameras, pairs.g_camera)
    # The largest distance is a threshold too: all pairs are below it, which counts them.
    top = 3.0 if pairs.metric == "cosine" else 2 * largest + 1
    values, place = torch.cat([at, at.new_tensor([top])]).unique(return_inverse=True)
    size = len(cameras)
    below = Thresholds(pairs, values, largest).counts_by_camera(q_camera, g_camera, size)
    group = q_camera[pairs.row] * size + g_camera[pairs.index]
    matched = torch.stack(
        [
            torch.bincount(group[pairs.distance <= value], minlength=size**2).view(size, size)
            for value in values
        ]
    )
    result = []
    for a in range(size):
        for b in range(a, size):
            false, true = (
                counts[:, a, b] + (counts[:, b, a] if a != b else 0) for counts in (below, matched)
            )
            impostors, genuine = int(false[-1]), int(true[-1])
            if not impostors and not genuine:
                continue
            result.append(
                CameraPair(
                    (int(cameras[a]), int(cameras[b])),
                    genuine,
                    impostors,
                    (false[place[:-1]].double() / impostors).tolist(),
                    (1 - true[place[:-1]].double() / genuine).tolist(),
                )
            )
    return result


def _protocol(pairs: PairSet, metric: str, junk: bool) -> str:
    left_out = [
        "pid -1",
        *["same pid and camera"] * junk,
        *(f"same pid and {rule.remove} {rule.tag}" for rule in pairs.protocol.rules),
        *["a tracklet with itself"] * pairs.protocol.excludes,
    ]
    return f"{metric} distance; left out: {', '.join(left_out)}"
