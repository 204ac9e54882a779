"""The evaluation protocol in plain torch: matches by sorting persons, and the scores of sorted ranks."""

import torch
from torch import Tensor

from vreid_ext.backends.groups import starts


def matches(
    query: Tensor,
    gallery: Tensor,
    query_label: Tensor,
    gallery_label: Tensor,
    same: Tensor,
    itself: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Row, index and start of the positives; start and index of the items to leave out."""
    queries, device = len(query), query.device
    by_person, order = gallery.sort(stable=True)
    first, last = torch.searchsorted(by_person, query), torch.searchsorted(by_person, query, right=True)
    last = torch.where(query == -1, first, last)  # pid -1 is junk and has no positives
    row = torch.repeat_interleave(last - first)
    place = first - starts(row, queries)[:-1]  # of the first pair of a query, in `order`
    index = order[torch.arange(len(row), device=device) + place[row]]
    removed = ((query_label[:, row] == gallery_label[:, index]) == same[:, None]).any(0)
    if itself is not None:
        removed |= index == itself[row]
    positive_row, positive_index = row[~removed], index[~removed]

    row, index = row[removed], index[removed]  # in ascending order
    if itself is not None:
        other = ((itself >= 0) & (gallery[itself.clamp(min=0)] != query)).nonzero()[:, 0]
        row, index = torch.cat([row, other]), torch.cat([index, itself[other]])
        order = index.argsort(stable=True)
        order = order[row[order].argsort(stable=True)]
        row, index = row[order], index[order]
    return positive_row, positive_index, starts(positive_row, queries), starts(row, queries), index


def rank_scores(start: Tensor, counts: Tensor, trapezoid: bool) -> tuple[Tensor, Tensor, Tensor]:
    """AP, INP (Q,) float64 and the rank of the first positive (Q,) int64, 0 if there is none."""
    positives = start.diff()
    row = torch.repeat_interleave(positives)
    rank = counts + 1
    order = rank.argsort()
    rank = rank[order[row[order].argsort(stable=True)]]  # ascending within a query
    hit = torch.arange(1, len(row) + 1, device=row.device) - start[row]  # 1, 2, ... within a query
    precision = hit.double() / rank
    if trapezoid:
        precision = (torch.where(rank > 1, (hit - 1) / (rank - 1).double(), 1.0) + precision) / 2
    total = positives.new_zeros(len(positives), dtype=torch.float64).scatter_add(0, row, precision)
    none = torch.zeros_like(positives)
    first = none.scatter_reduce(0, row, rank, "amin", include_self=False)
    last = none.scatter_reduce(0, row, rank, "amax", include_self=False)
    return total / positives, positives / last.double(), first  # 0 / 0: NaN marks a query without a positive
