"""Check of the camera bias: how much of the features is the camera, compared with the person."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vreid_ext import metrics
from vreid_ext.engine.doctor.finding import Finding, Skipped
from vreid_ext.engine.doctor.subject import Subject, cells, means

LIMIT = 1.0  # effect of the camera relative to that of the person
LEAST_GAIN = 0.01  # of mAP; a smaller gain is no bias, however many persons show it
LEAST_RATIO = 0.2  # a camera with a smaller effect is no bias, even if its mean is worth a subtraction
_LEAST_PERSONS = 20
_GROUPS = 20  # of the jackknife
_SURE = 3.0  # standard errors
_CONFIDENCE = 0.99  # of the interval of the gain


class _Distances(NamedTuple):
    """Mean squared distances of pairs: strangers in one camera and in two, one person in two cameras."""

    strangers_one: float
    strangers_two: float
    person_two: float

    @property
    def ratio(self) -> float:
        camera, person = self.strangers_two - self.strangers_one, self.strangers_two - self.person_two
        return camera / person if person > 0 else math.inf


def camera(subject: Subject) -> Finding:
    """Whether the camera hides the person: in the distances, and in what a search finds.

    With m_pa the mean row of person p in camera a, and means over all pairs of these,

        C = |m_pa - m_qb|^2 - |m_pa - m_qa|^2        how much nearer strangers are in the same camera
        I = |m_pa - m_qb|^2 - |m_pa - m_pb|^2        how much nearer a person is than strangers
        ratio = C / I

    Above 1, a stranger in the same camera is nearer than the same person in another camera. The second figure
    is the gain in mAP of a search among the tracklets of the sample, if the mean of each camera is subtracted
    from its rows (`metrics.compare`). Something is found if the ratio exceeds 1 by three standard errors
    (jackknife over 20 groups of persons), or 0.2 by three standard errors and the 99 % interval of the gain
    is above one point. Reported besides: the share of tracklets whose nearest stranger is from the same
    camera, and the share that is expected if the camera does not matter. Strangers are other persons, so
    persons explain none of the difference.
    """
    sample = subject.sample
    if sample.cameras < 2:
        raise Skipped("needs tracklets of at least 2 cameras, got 1")
    mean, person, of_camera = cells(sample, sample.rows)
    several = int((torch.bincount(person) > 1).sum())
    if several < _LEAST_PERSONS:
        raise Skipped(f"needs {_LEAST_PERSONS} persons in two cameras, got {several}")
    whole = _distances(mean, person, of_camera)
    group = torch.randperm(sample.persons, generator=torch.Generator().manual_seed(0)) % _GROUPS
    ratios = torch.tensor(
        [
            _distances(*(each[group[person] != left] for each in (mean, person, of_camera))).ratio
            for left in range(_GROUPS)
        ],
        dtype=torch.float64,
    )
    spread = (ratios - ratios.mean()).square().sum() * (_GROUPS - 1) / _GROUPS
    error = float(spread.sqrt()) if ratios.isfinite().all() else math.inf
    found, expected, sure = _predicted(subject)
    gain = _gain(subject)
    evidence: dict[str, Any] = {
        "ratio": _number(whole.ratio),
        "standard_error": _number(error),
        "limit": LIMIT,
    }
    evidence |= whole._asdict()
    evidence |= {"gain": gain._asdict(), "least_gain": LEAST_GAIN, "least_ratio": LEAST_RATIO}
    evidence |= {"predicted": found, "chance": expected, "predicted_standard_error": sure}
    summary = (
        f"the camera has {whole.ratio:.2f} times the effect of the person; the nearest stranger is from the "
        f"same camera for {100 * found:.0f} % of the tracklets, {100 * expected:.0f} % by chance; "
        f"subtracting the mean of each camera changes mAP by {100 * gain.value:+.1f} [{100 * gain.low:+.1f}, "
        f"{100 * gain.high:+.1f}] points"
    )
    least = whole.ratio - _SURE * error
    hidden = least > LIMIT or (least > LEAST_RATIO and gain.low > LEAST_GAIN)
    hidden |= math.isinf(whole.ratio) and found - _SURE * sure > expected
    if hidden:
        return Finding(
            "camera",
            "warning",
            summary,
            evidence,
            "Train with persons from several cameras in each batch, or subtract the mean feature of each "
            "camera before the comparison.",
        )
    return Finding("camera", "ok", summary, evidence)


def _distances(mean: Tensor, person: Tensor, of_camera: Tensor) -> _Distances:
    """From sums over cameras and persons, without the matrix of pairs."""
    length = mean.square().sum(1)

    def pairs(group: Tensor) -> tuple[float, float]:
        """Sum of squared distances and number of the ordered pairs within the groups."""
        group = group.unique(return_inverse=True)[1]
        size = torch.bincount(group).double()
        total = torch.zeros(len(size), mean.shape[1], dtype=mean.dtype).index_add_(0, group, mean)
        squares = torch.zeros(len(size), dtype=mean.dtype).index_add_(0, group, length)
        distance = 2 * (size * squares).sum() - 2 * total.square().sum()
        return float(distance), float((size * (size - 1)).sum())

    everyone, of_persons, of_cameras = pairs(torch.zeros_like(person)), pairs(person), pairs(of_camera)
    two = [a - b - c for a, b, c in zip(everyone, of_persons, of_cameras, strict=True)]
    return _Distances(*(each[0] / max(each[1], 1) for each in (of_cameras, two, of_persons)))


def _gain(subject: Subject) -> metrics.Interval:
    """Difference of mAP, with its interval, if the mean of each camera is subtracted."""
    sample, metric = subject.sample, subject.metric or "cosine"
    before, after = (
        metrics.evaluate(
            rows, rows, *(sample.pids,) * 2, *(sample.camids,) * 2,
            metric=metric, exclude=torch.arange(len(rows)),
        )
        for rows in (sample.rows, sample.centred)
    )  # fmt: skip
    return metrics.compare(before, after, sample.pids, confidence=_CONFIDENCE).difference["mAP"]


def _predicted(subject: Subject) -> tuple[float, float, float]:
    """Share of rows whose nearest stranger has their camera, the share by chance, and the standard error of
    the difference, from the spread over persons.
    """
    sample = subject.sample
    hit = (sample.camids[subject.strangers.row] == sample.camids).double()
    cell = sample.pids * sample.cameras + sample.camids
    in_cell = torch.bincount(cell, minlength=sample.persons * sample.cameras)[cell]
    in_camera, own = torch.bincount(sample.camids)[sample.camids], torch.bincount(sample.pids)[sample.pids]
    chance = (in_camera - in_cell).double() / (len(hit) - own)
    excess = means((hit - chance)[:, None], sample.pids)[:, 0]
    return float(hit.mean()), float(chance.mean()), float(excess.std()) / math.sqrt(len(excess))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no infinity
