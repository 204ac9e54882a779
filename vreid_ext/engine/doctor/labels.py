"""Checks of the labels: two persons under one pid, and one person under two.

Both compare features from which the mean of the camera has been subtracted, so that a camera alone does not
separate or join persons. Both plant their own fault in the given data, and report in what share of the cases
it would be found (`power`): with features that hardly separate persons, wrong labels cannot be seen.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext import ops
from vreid_ext.engine.doctor.finding import Finding, Group, Skipped
from vreid_ext.engine.doctor.subject import Sample, Subject, means

LEVEL = 0.01  # probability of at least one false alarm in a set, under the null distribution of each check
_LEAST_PERSONS = 20
_LEAST_POWER = 0.5
_PLANTED = 200
_MOST_TRACKLETS = 64  # of one person, for clustering
_NEIGHBORS = 4
_SHOWN = 12
_SHOWN_TRACKLETS = 3


class _Parts(NamedTuple):
    """Two groups of rows of a person; `gap` is the distance of their means, relative to other persons."""

    gap: float
    a: Tensor
    b: Tensor


def merged(subject: Subject) -> Finding:
    """Persons whose tracklets form two groups that are as far apart as different persons.

    The rows of a person are cut into two groups A, B by average linkage, and

        x_p = |mean A - mean B| / (root mean square distance of these means to those of other persons)

    A person is reported if x_p exceeds both the limit

        m + (q84 - m) ln(0.5 P / 0.01) / ln(0.5 / 0.16)

    with m and q84 the median and the 84 % quantile of x over all P persons, and the 1 % quantile of 200 pairs
    of persons that are merged on purpose. The limit is that of an exponential tail through the two quantiles
    with a probability of 0.01 / P; the tails of clean sets are lighter.
    """
    sample = subject.sample
    sizes = torch.bincount(sample.pids)
    several = (sizes > 1).nonzero()[:, 0].tolist()
    if len(several) < _LEAST_PERSONS:
        raise Skipped(f"needs {_LEAST_PERSONS} persons with two tracklets, got {len(several)}")
    rows = sample.centred.double()
    centre = means(rows, sample.pids)
    parts = [_cut(rows, sample.of_person(person), centre) for person in several]
    gaps = torch.tensor([each.gap for each in parts], dtype=torch.float64)
    middle, upper = gaps.quantile(gaps.new_tensor([0.5, 0.84])).tolist()
    limit = middle + (upper - middle) * math.log(0.5 * len(several) / LEVEL) / math.log(0.5 / 0.16)
    planted = gaps.new_tensor([
        _cut(rows, torch.cat([sample.of_person(p) for p in pair]), centre).gap
        for pair in _pairs(sample.persons)
    ])  # fmt: skip
    limit = max(limit, float(planted.quantile(0.01)))
    power = float((planted > limit).double().mean())
    found = (gaps > limit).nonzero()[:, 0]
    found = found[gaps[found].argsort(descending=True)].tolist()
    labels = [subject.tracklets[int(sample.number[parts[n].a[0]])].pid for n in found]
    evidence = {"persons": len(several), "found": len(found), "pids": labels, "limit": limit, "power": power}
    evidence |= {"median": middle, "gaps": [parts[n].gap for n in found]}
    groups = []
    for pid, number in zip(labels[:_SHOWN], found, strict=False):
        sides = (side[:_SHOWN_TRACKLETS] for side in (parts[number].a, parts[number].b))
        for title, side in zip((f"person {pid}, one group", f"person {pid}, the other"), sides, strict=True):
            groups.append(Group(title, tuple(sample.number[side].tolist())))
    return _finding(
        "merged",
        evidence,
        f"{len(found)} of {len(several)} persons have two groups of tracklets that are as far apart as "
        "different persons",
        "Look at the two groups, and give them two persons if they are.",
        groups,
    )


def split(subject: Subject) -> Finding:
    """Pairs of persons that are nearer to each other than persons at random are.

    With d_1 <= ... <= d_4 the distances from the mean of a person to the nearest means of other persons, r
    the intrinsic dimension, and locally uniform density, (d_1 / d_4)^r is the smallest of three uniform
    numbers, so that

        p = 1 - (1 - (d_1 / d_4)^r)^3,        r = ln 2 / median(ln(d_2 / d_1))

    A pair is reported if each is the nearest of the other, with p <= 0.01 / P from both sides.

    Source: Facco et al. (2017), Estimating the intrinsic dimension of datasets by a minimal neighborhood
    information, Sci. Rep. 7.
    """
    sample = subject.sample
    if sample.persons < _LEAST_PERSONS:
        raise Skipped(f"needs {_LEAST_PERSONS} persons, got {sample.persons}")
    centre = means(sample.centred, sample.pids)
    distance, index = _nearest(centre, centre, torch.arange(len(centre)), _NEIGHBORS)
    if bool((distance[:, 0] == 0).all()):
        raise Skipped("all persons have the same features")
    ratio = (distance[:, 1] / distance[:, 0].clamp(min=torch.finfo(torch.float64).tiny)).log()
    dimension = float(torch.log(ratio.new_tensor(2.0)) / ratio.median().clamp(min=1e-9))
    p = _p(distance[:, 0], distance[:, -1], dimension)
    level = LEVEL / sample.persons
    mutual = index[index[:, 0], 0] == torch.arange(len(centre))
    unlikely = mutual & (torch.maximum(p, p[index[:, 0]]) <= level)
    pairs = [(a, int(index[a, 0])) for a in unlikely.nonzero()[:, 0].tolist() if a < int(index[a, 0])]
    pairs.sort(key=lambda pair: float(p[list(pair)].max()))
    power = _power_of_split(sample, centre, dimension, level)
    labels = [[_pid(subject, person) for person in pair] for pair in pairs]
    evidence = {"persons": sample.persons, "found": len(pairs), "pids": labels, "power": power}
    evidence |= {"p": [float(p[list(pair)].max()) for pair in pairs], "limit": level}
    evidence |= {"intrinsic_dimension": dimension}
    groups = []
    for pair in pairs[:_SHOWN]:
        for person in pair:
            rows = sample.number[sample.of_person(person)][:_SHOWN_TRACKLETS].tolist()
            groups.append(Group(f"person {_pid(subject, person)}", tuple(rows)))
    return _finding(
        "split",
        evidence,
        f"{len(pairs)} pairs of {sample.persons} persons are nearer to each other than different persons are",
        "Look at each pair, and give both the same person if they are.",
        groups,
    )


def _finding(
    name: str, evidence: dict[str, object], summary: str, remedy: str, groups: list[Group]
) -> Finding:
    power = evidence["power"]
    assert power is None or isinstance(power, float)
    if evidence["found"]:
        return Finding(name, "warning", summary, evidence, remedy, tuple(groups))
    if power is None:
        return Finding(name, "ok", summary, evidence)
    shown = f"{summary}; {100 * power:.0f} % of planted faults would be found"
    return Finding(name, "ok" if power >= _LEAST_POWER else "skipped", shown, evidence)


def _cut(rows: Tensor, own: Tensor, centre: Tensor) -> _Parts:
    """Cut the rows `own` into two groups."""
    from scipy.cluster.hierarchy import fcluster, linkage

    own = own[:: -(-len(own) // _MOST_TRACKLETS)]
    if len(own) == 2:
        side = torch.arange(1, 3)
    else:
        side = torch.from_numpy(fcluster(linkage(rows[own].numpy(), "average"), 2, "maxclust"))
    first = side == 1
    if bool(first.all()):  # all rows are equal
        first = torch.arange(len(own)) == 0
    a, b = own[first], own[~first]
    ends = torch.stack([rows[a].mean(0), rows[b].mean(0)])
    others = (
        ends.square().sum(1) - 2 * ends @ centre.mean(0) + centre.square().sum(1).mean()
    )  # mean squared distance to the means of all persons
    gap = (ends[0] - ends[1]).norm() / others.mean().clamp(min=1e-300).sqrt()
    return _Parts(float(gap), a, b)


def _power_of_split(sample: Sample, centre: Tensor, dimension: float, level: float) -> float | None:
    """Share of persons that would be reported if they were split; None if nobody has two tracklets."""
    several = (torch.bincount(sample.pids) > 1).nonzero()[:, 0]
    if not len(several):
        return None
    chosen = several[torch.randperm(len(several), generator=torch.Generator().manual_seed(0))[:_PLANTED]]
    halves = []
    for person in chosen.tolist():
        own = sample.of_person(person)
        own = own[sample.camids[own].argsort(stable=True)]  # halves differ in their cameras, if possible
        halves += [sample.centred[own[: len(own) // 2]].mean(0), sample.centred[own[len(own) // 2 :]].mean(0)]
    half = torch.stack(halves).double()
    between = (half[::2] - half[1::2]).norm(dim=1).repeat_interleave(2)
    others, _ = _nearest(half, centre, chosen.repeat_interleave(2), _NEIGHBORS - 1)
    p = _p(between, others[:, -1], dimension)
    found = (p <= level) & (between < others[:, 0])
    return float((found[::2] & found[1::2]).double().mean())


def _nearest(rows: Tensor, centre: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of `centre`, leaving out number `own[i]` for row i."""
    start = torch.arange(len(rows) + 1)
    return ops.top_k(rows, centre, k, "euclidean", left_out=(start, own.contiguous()))


def _p(nearest: Tensor, last: Tensor, dimension: float) -> Tensor:
    share = (nearest / last.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1) ** dimension
    # 1 - (1 - s)^3 for tiny s
    return -torch.expm1((_NEIGHBORS - 1) * torch.log1p(-share))


def _pairs(persons: int) -> list[tuple[int, int]]:
    """At most `_PLANTED` pairs of different persons."""
    drawn = torch.randint(persons, (4 * _PLANTED, 2), generator=torch.Generator().manual_seed(0))
    pairs = dict.fromkeys((min(pair), max(pair)) for pair in drawn.tolist() if pair[0] != pair[1])
    return list(pairs)[:_PLANTED]


def _pid(subject: Subject, person: int) -> int:
    sample = subject.sample
    return subject.tracklets[int(sample.number[sample.of_person(person)[0]])].pid
