"""Ranks by counting, from tiles of distances."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends.addresses import address, dense
from vreid_ext.backends.cuda.launch import queue


def rank_counts(
    distances: Tensor,
    start: Tensor,
    index: Tensor,
    distance: Tensor,
    left_start: Tensor | None,
    left: Tensor | None,
    kept: Tensor | None,
    offset: int,
) -> Tensor:
    distances = distances.contiguous()
    inputs = [dense(each) for each in (distances, kept, left_start, left, start, distance, index)]
    counts = torch.zeros_like(index)
    _cuda.rank_counts(*distances.shape, offset, *map(address, (*inputs, counts)), *queue(distances))
    return counts
