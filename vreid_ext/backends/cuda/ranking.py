"""Ranks by counting, from tiles of distances."""

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
    left = args.kept, args.left_start, args.left
    inputs = [dense(each) for each in (distances, *left, args.start, args.distance, args.index)]
    counts = args.results()
    _cuda.rank_counts(*distances.shape, args.offset, *map(address, (*inputs, counts)), *queue(distances))
    return counts
