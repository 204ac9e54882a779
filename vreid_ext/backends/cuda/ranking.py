"""Ranks by counting, from tiles of distances."""

import torch
from torch import Tensor

from vreid_ext import _cuda
from vreid_ext.backends import signatures
from vreid_ext.backends.addresses import address, dense
from vreid_ext.backends.cuda.launch import queue
from vreid_ext.backends.errors import all_finite


def rank_counts(args: signatures.RankCounts) -> Tensor:
    distances = args.distances.contiguous()
    if args.check:
        all_finite("distances", distances.isfinite().all(1))
    distance = args.distance
    if distance is None:
        row = torch.repeat_interleave(args.start.diff(), output_size=len(args.index))
        distance = distances[row, args.index - args.offset].double()
    left = args.kept, args.left_start, args.left
    inputs = [dense(each) for each in (distances, *left, args.start, distance, args.index)]
    counts = args.results()
    _cuda.rank_counts(*distances.shape, args.offset, *map(address, (*inputs, counts)), *queue(distances))
    return counts
