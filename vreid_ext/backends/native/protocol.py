"""The evaluation protocol: matches of persons through a hash table, and the scores of sorted ranks."""

import torch
from torch import Tensor

from vreid_ext import _native
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import LabelledItems, Sorted, address, dense


def matches(args: signatures.Matches) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = [dense(each) for each in args]
    queries, gallery = len(args.query), len(args.gallery)
    items = LabelledItems(queries, gallery, len(args.same), *map(address, tensors))
    order, first, last = _integers(gallery), _integers(queries), _integers(queries)
    start, left_start = _integers(queries + 1), _integers(queries + 1)
    places = Sorted(*map(address, (order, first, last, start, left_start)))
    _native.count_matches(items, places)
    row, index, left = (_integers(int(each[-1])) for each in (start, start, left_start))
    _native.matches(items, places, *map(address, (row, index, left)))
    return row, index, start, left_start, left


def rank_scores(args: signatures.RankScores) -> tuple[Tensor, Tensor, Tensor]:
    start, counts = args.start.contiguous(), args.counts.contiguous()
    queries = len(start) - 1
    ap, inp = (torch.empty(queries, dtype=torch.float64, device="cpu") for _ in range(2))
    first = _integers(queries)
    _native.rank_scores(
        *(queries, len(counts), address(start), address(counts), args.trapezoid),
        *map(address, (ap, inp, first)),
    )
    return ap, inp, first


def _integers(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.int64, device="cpu")
