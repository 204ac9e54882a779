"""Confidence intervals of verification figures, by a bootstrap over persons."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext.metrics.bootstrap import Interval, times_drawn
from vreid_ext.metrics.open_set import Searches, detection_rates
from vreid_ext.metrics.pairs import ROUNDING, PairSample, PairSet, Thresholds

_BLOCK_ELEMENTS = 2**22  # weights (resamples, pairs) in memory at once


class Figures(NamedTuple):
    """Counts of all pairs at every threshold, (m,) each, on the CPU."""

    values: Tensor
    false_below: Tensor
    false: Tensor
    true: Tensor


class Resampled(NamedTuple):
    """Figures with their intervals: of each operating point, of the EER and of each rate of false alarms."""

    threshold: list[Interval]
    fmr: list[Interval]
    tpr: list[Interval]
    fnmr: list[Interval]
    eer: Interval
    detection: list[Interval]


def intervals(
    pairs: PairSet,
    curve: Figures,
    sample: PairSample,
    thresholds: Thresholds,
    found: Searches,
    *,
    fprs: Sequence[float],
    places: Sequence[int],
    fpirs: tuple[float, ...],
    confidence: float,
    resamples: int,
    generator: torch.Generator,
) -> Resampled:
    """The figures of all pairs, with the quantiles of their values in resamples of the persons.

    Args:
        places: index into `curve.values` of the threshold of each operating point: one for each of `fprs`,
            then those of given thresholds.
    """
    persons = pairs.persons
    # Number of sampled pairs and of genuine pairs up to each threshold.
    place = thresholds.place(_key(pairs, sample.distance)).cpu()
    sampled = torch.searchsorted(place, torch.arange(len(curve.values), device="cpu"), right=True)
    row, item = (person.cpu() for person in (pairs.person[sample.row], pairs.g_person[sample.item]))
    genuine = pairs.person[pairs.row].cpu()
    points = torch.tensor(places, dtype=torch.int64, device="cpu")
    block = max(1, _BLOCK_ELEMENTS // (len(row) + len(genuine) + 2 * len(curve.values)))
    drawn: list[dict[str, Tensor]] = []
    for first in range(0, resamples, block):
        weights = times_drawn(min(block, resamples - first), persons, generator)
        padded = torch.cat([weights, weights.new_ones(len(weights), 1)], 1)
        weight = padded.index_select(1, row).mul_(padded.index_select(1, item)).mul_(sample.weight)
        impostors = pairs.impostor_weight(weights)[:, None]
        false = _cumulated(weight, sampled) / impostors
        true = _cumulated(weights.index_select(1, genuine), curve.true)
        # Few persons: a draw may have no genuine or no impostor pair, and so no rates.
        usable = ((impostors > 0) & (true[:, -1:] > 0))[:, 0]
        false, true, weights = false[usable], true[usable] / true[usable, -1:], weights[usable]
        drawn.append({
            **_at(curve, false, true, fprs, points),
            "detection": detection_rates(found, fpirs, weights),
        })  # fmt: skip
    resampled = {name: torch.cat([each[name] for each in drawn]) for name in drawn[0]}
    once = torch.ones(1, persons, dtype=torch.float64, device="cpu")
    false, true = curve.false.double() / pairs.impostors, curve.true.double() / len(genuine)
    chosen = torch.cat([curve.values.new_full((1,), -torch.inf), curve.values])[points + 1]
    rates = [torch.cat([each.new_zeros(1), each])[points + 1] for each in (false, true)]
    between = (1 - confidence) / 2, (1 + confidence) / 2
    return Resampled(
        threshold=_spread(chosen, resampled["threshold"], between),
        fmr=_spread(rates[0], resampled["fmr"], between),
        tpr=_spread(rates[1], resampled["tpr"], between),
        fnmr=_spread(1 - rates[1], resampled["fnmr"], between),
        eer=_spread(chosen.new_tensor([_equal_error_rate(curve)]), resampled["eer"], between)[0],
        detection=_spread(detection_rates(found, fpirs, once)[0], resampled["detection"], between),
    )


def _key(pairs: PairSet, distance: Tensor) -> Tensor:
    key = distance.square() if pairs.metric == "euclidean" else distance
    return key.to(pairs.query.device)


def _cumulated(weights: Tensor, counts: Tensor) -> Tensor:
    """(R,m): sum of the first counts[j] of the weights (R,n)."""
    total = weights.cumsum(1).index_select(1, (counts - 1).clamp(min=0))
    return total.masked_fill_(counts == 0, 0)


def _at(
    curve: Figures, false: Tensor, true: Tensor, fprs: Sequence[float], points: Tensor
) -> dict[str, Tensor]:
    """Figures (R,F) of resamples with the rates `false` and `true` (R,m) at every threshold."""
    # A rate or threshold below the first value of the curve: nothing matches.
    values = torch.cat([curve.values.new_full((1,), -torch.inf), curve.values])
    none = false.new_zeros(len(false), 1)
    padded_false, padded_true = torch.cat([none, false], 1), torch.cat([none, true], 1)
    limits = false.new_tensor(fprs) * (1 + ROUNDING)
    below = torch.searchsorted(false, limits.expand(len(false), -1).contiguous(), right=True)
    given = points[len(fprs) :] + 1
    chosen = torch.cat([below, given.expand(len(false), -1)], 1)
    crossed = (padded_false >= 1 - padded_true).int().argmax(1, keepdim=True)
    before = (crossed - 1).clamp(min=0)
    return {
        "threshold": values[chosen],
        "fmr": padded_false[:, points + 1],
        "tpr": padded_true.gather(1, chosen),
        "fnmr": 1 - padded_true[:, points + 1],
        "eer": torch.minimum(padded_false.gather(1, crossed), 1 - padded_true.gather(1, before)),
    }


def _equal_error_rate(curve: Figures) -> float:
    """Where the ROC curve has FPR = 1 - TPR. Between its corners the curve is straight."""
    impostors, genuine = int(curve.false[-1]), int(curve.true[-1])
    zero = curve.true.new_zeros(1)
    false = torch.cat([zero, torch.stack([curve.false_below, curve.false], 1).flatten()]).double() / impostors
    before = torch.cat([zero, curve.true[:-1]])
    true = torch.cat([zero, torch.stack([before, curve.true], 1).flatten()]).double() / genuine
    gap = false + true - 1
    corner = int((gap >= 0).int().argmax())
    share = float(-gap[corner - 1] / (gap[corner] - gap[corner - 1]))
    return float(false[corner - 1] + share * (false[corner] - false[corner - 1]))


def _spread(values: Tensor, drawn: Tensor, between: tuple[float, float]) -> list[Interval]:
    """Values (F,) with quantiles over the resamples (R,F) or (R,1)."""
    if not values.numel():
        return []
    if not len(drawn):
        return [Interval(value, torch.nan, torch.nan) for value in values.tolist()]
    # "nearest": a threshold of a resample may be infinite, and interpolation would give NaN.
    low, high = (drawn.nanquantile(each, 0, interpolation="nearest") for each in between)
    return [Interval(*row) for row in zip(values.tolist(), low.tolist(), high.tolist(), strict=True)]
