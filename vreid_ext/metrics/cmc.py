"""Rank-1 by two other definitions of the CMC, from full ranked lists."""

import torch
from torch import Tensor


def rank1_variants(items: Tensor, q_pids: Tensor, g_pids: Tensor) -> tuple[Tensor, Tensor]:
    """Rank-1 of every query with all shots, and with one shot of each person in the gallery.

    With the kept items of a query in order of distance:

        all shots:     share of its positives that no item of another person precedes
        single shot:   one item of each person is drawn at random. With c_j of the n_j items of person j
                       before a positive, the expectation is the mean over positives of prod_j (1 - c_j / n_j)

    open-reid calls these `allshots` and `single_gallery_shot`. torchreid and fast-reid estimate the second
    one with ten draws (`eval_cuhk03`).

    Args:
        items: (Q,G) int64 indices of the kept items of every query, nearest first, filled up with -1
            (`metrics.rank`).
        q_pids, g_pids: (Q,), (G,) int64.

    Returns:
        Two tensors (Q,) float64, NaN for a query without a positive.
    """
    kept = items >= 0
    pids = g_pids[items.clamp(min=0)]
    positive = kept & (pids == q_pids[:, None])
    impostor = kept & ~positive
    count = positive.sum(1).double()
    first = positive & (impostor.cumsum(1) == 0)
    occurrence, total = _occurrences(pids.where(kept, pids.max() + 1))
    # Passing the m-th of n items of a person multiplies the product by (n - m) / (n - m + 1).
    factor = ((total - occurrence).double() / (total - occurrence + 1)).where(impostor, 1)
    single = (factor.cumprod(1) * positive).sum(1)
    return first.sum(1) / count, single / count


def _occurrences(pids: Tensor) -> tuple[Tensor, Tensor]:
    """(Q,G) each: how many items up to this one have its pid, and how many of the row do."""
    ordered, order = pids.sort(dim=1, stable=True)
    place = torch.arange(pids.shape[1], device=pids.device).expand_as(pids)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    start = place.where(new, 0).cummax(1).values
    last = torch.ones_like(new)
    last[:, :-1] = new[:, 1:]
    end = place.where(last, pids.shape[1]).flip(1).cummin(1).values.flip(1)
    occurrence, total = torch.empty_like(pids), torch.empty_like(pids)
    return occurrence.scatter_(1, order, place - start + 1), total.scatter_(1, order, end - start + 1)
