"""Checks of the similarities between persons: all alike, or no better than chance."""

import torch

from vreid_ext.engine.doctor.finding import Finding, Skipped
from vreid_ext.engine.doctor.subject import Subject, cells
from vreid_ext.ops import pair_distances

MOST_ALIKE = 0.9  # mean cosine of different persons
LEAST_DIMENSIONS = 3.0
_PAIRS = 100_000
_PERMUTATIONS = 199
_LEAST_PERSONS = 10
_LEVEL = 0.05


def collapsed(subject: Subject) -> Finding:
    """Features that are nearly the same for all persons, or vary in a few directions only.

        mean cosine = (|sum_i u_i|^2 - sum_p |sum_{i in p} u_i|^2) / #pairs,     u = row / |row|
        dimensions  = (tr C)^2 / |C|_F^2,                                        C = covariance of the rows

    The mean is over all pairs of different persons, from sums. `dimensions` is the participation ratio, the
    number of equal variances that would have the same spread.
    """
    sample = subject.sample
    unit = torch.nn.functional.normalize(sample.rows, dim=1).double()
    total = unit.sum(0)
    persons = torch.zeros(sample.persons, unit.shape[1], dtype=torch.float64).index_add_(0, sample.pids, unit)
    sizes = torch.bincount(sample.pids).double()
    pairs = len(unit) ** 2 - float(sizes.square().sum())
    alike = float(total.square().sum() - persons.square().sum()) / pairs
    dimensions = _participation(sample.rows)
    generator = torch.Generator().manual_seed(0)
    row, index = torch.randint(len(unit), (2, _PAIRS), generator=generator)
    other = sample.pids[row] != sample.pids[index]
    cosine = 1 - pair_distances(sample.rows, sample.rows, row[other], index[other], "cosine")
    low, middle, high = cosine.quantile(cosine.new_tensor([0.05, 0.5, 0.95])).tolist()
    evidence = {"mean_cosine": alike, "cosine_5_50_95": [low, middle, high], "dimensions": dimensions}
    evidence |= {"limit_cosine": MOST_ALIKE, "limit_dimensions": LEAST_DIMENSIONS}
    summary = (
        f"cosine between different persons {alike:.3f} on average, 90 % from {low:.3f} to {high:.3f}; "
        f"{dimensions:.1f} effective dimensions of {unit.shape[1]}"
    )
    if dimensions < LEAST_DIMENSIONS and sample.persons >= _LEAST_PERSONS:  # few persons need few dimensions
        return Finding(
            "collapsed",
            "error",
            summary,
            evidence,
            "Check that the weights were loaded and that the loss decreased during the training; features of "
            "so few dimensions cannot separate persons.",
        )
    if alike > MOST_ALIKE and subject.metric == "cosine":
        return Finding(
            "collapsed",
            "warning",
            summary,
            evidence,
            "Check that the weights were loaded; if they were, subtract the mean of the features (or use "
            "model.neck=bn), because what all persons share hides what separates them.",
        )
    return Finding("collapsed", "ok", summary, evidence)


def informative(subject: Subject) -> Finding:
    """Whether tracklets of one person are more similar than those of different persons.

    With m_pa the mean row of person p in camera a, minus the mean of the camera, the statistic is
    T = sum_p sum_{a<b} m_pa . m_pb. Its null distribution is exact: within every camera, the means are
    permuted among the persons 199 times. Something is found if the p-value is above 0.05, which means that
    the features have not been shown to depend on the person.
    """
    sample = subject.sample
    mean, person, camera = cells(sample, sample.centred)
    if len(person) == sample.persons:  # one camera per person: compare single tracklets
        mean, person, camera = sample.centred.double(), sample.pids, torch.zeros_like(sample.pids)
    several = torch.bincount(person, minlength=sample.persons) > 1
    if int(several.sum()) < _LEAST_PERSONS:
        raise Skipped(
            f"needs {_LEAST_PERSONS} persons with two tracklets, from two cameras if there are any; got "
            f"{int(several.sum())}"
        )
    within = (camera * sample.persons + person).argsort()
    mean, person, camera = mean[within], person[within], camera[within]
    blocks = [(camera == number).nonzero()[:, 0] for number in camera.unique()]
    generator = torch.Generator().manual_seed(0)
    given = _agreement(mean, person, sample.persons)
    above = 0
    for _ in range(_PERMUTATIONS):
        order = torch.cat([block[torch.randperm(len(block), generator=generator)] for block in blocks])
        above += _agreement(mean[order], person, sample.persons) >= given
    p = (1 + above) / (1 + _PERMUTATIONS)
    evidence = {"p": p, "permutations": _PERMUTATIONS, "persons": int(several.sum()), "level": _LEVEL}
    summary = f"tracklets of one person are more similar than under permuted labels: p = {p:.3f}"
    if p <= _LEVEL:
        return Finding("informative", "ok", summary, evidence)
    return Finding(
        "informative",
        "error",
        f"tracklets of one person are not more similar than those of different persons: p = {p:.3f} of "
        f"{int(several.sum())} persons",
        evidence,
        "Check that the weights were loaded, and that rows and labels have the same order.",
    )


def _agreement(mean: torch.Tensor, person: torch.Tensor, persons: int) -> float:
    """sum_p |sum_a m_pa|^2, which is 2 T plus a term that permutations do not change."""
    total = torch.zeros(persons, mean.shape[1], dtype=mean.dtype).index_add_(0, person, mean)
    return float(total.square().sum())


def _participation(rows: torch.Tensor) -> float:
    centred = rows.double() - rows.double().mean(0)
    variance = float(centred.square().sum())
    if variance == 0:
        return 0.0
    # |C|_F is the same for the D x D and the n x n product; the smaller one is at most limit x D.
    gram = centred.T @ centred if centred.shape[0] >= centred.shape[1] else centred @ centred.T
    return variance**2 / float(gram.square().sum())
