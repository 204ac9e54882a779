"""Open-set identification: the nearest person of every query, if it is in the gallery and if it is not."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from vreid_ext.metrics.pairs import ROUNDING, PairSet
from vreid_ext.metrics.protocol import Protocol
from vreid_ext.metrics.ranking import nearest


class Searches(NamedTuple):
    """Two searches of every query whose person is known, on the CPU.

    Attributes:
        person: (n,) int64, number of the query's person.
        mate: (n,) float64, distance to the nearest gallery item of its person; infinity if there is none.
        stranger: (n,) float64, distance to the nearest item of another person; infinity if there is none.
    """

    person: Tensor
    mate: Tensor
    stranger: Tensor


def searches(pairs: PairSet) -> Searches:
    """Search every query in the gallery, and in the gallery without its person (by `ops.top_k`)."""
    protocol = pairs.protocol
    mate = torch.full((len(pairs.query),), torch.inf, dtype=torch.float64, device=pairs.query.device)
    distance = pairs.distances(protocol.row, protocol.index)
    mate.scatter_reduce_(0, protocol.row, distance, "amin")
    found = nearest(pairs.query, pairs.gallery, 1, pairs.metric, _without_mates(protocol))[1][:, 0]
    known = pairs.person >= 0
    return Searches(*(each[known].cpu() for each in (pairs.person, mate, found)))


def detection_rates(found: Searches, fpirs: tuple[float, ...], weights: Tensor) -> Tensor:
    """(R,F) float64: rate of queries that are identified, at each rate of false alarms.

    Args:
        fpirs: (F) rates of false alarms.
        weights: (R,P) float64, weight of each person in each resample.
    """
    stranger, order = found.stranger.sort()
    alarms = weights[:, found.person[order]].cumsum(1)
    rates = alarms.new_zeros(len(weights), len(fpirs))
    first = (found.mate < found.stranger).nonzero()[:, 0]
    mate, place = found.mate[first].sort()
    identified = weights[:, found.person[first[place]]].cumsum(1)
    identified = torch.cat([identified.new_zeros(len(weights), 1), identified], 1)
    mated = weights[:, found.person[found.mate < torch.inf]].sum(1)
    for number, fpir in enumerate(fpirs):
        # The first stranger too many; the answer is "nobody" from its distance on.
        allowed = (alarms <= fpir * alarms[:, -1:] * (1 + ROUNDING)).sum(1)
        limit = torch.cat([stranger, stranger.new_tensor([torch.inf])])[allowed]
        count = torch.searchsorted(mate, limit)
        rates[:, number] = identified.gather(1, count[:, None])[:, 0] / mated
    return rates


def _without_mates(protocol: Protocol) -> Protocol:
    """The protocol with all items of the query's person left out."""
    start, left = protocol.left_out
    queries = len(start) - 1
    row = torch.cat([torch.repeat_interleave(start.diff(), output_size=len(left)), protocol.row])
    index = torch.cat([left, protocol.index])
    order = index.argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    result = copy.copy(protocol)
    ends = torch.bincount(row, minlength=queries).cumsum(0)
    result.left_out = torch.cat([ends.new_zeros(1), ends]), index[order].contiguous()
    return result
