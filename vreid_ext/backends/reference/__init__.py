"""The specification: every op in plain torch, differentiated by autograd.

These functions define the results of the ops; all other backends are tested against them.
"""

import torch

from vreid_ext.backends.reference.mining import (
    batch_hard,
    batch_hard_triplet,
    identity_hard,
    mined_distance,
)
from vreid_ext.backends.reference.part_metric import part_distance
from vreid_ext.backends.reference.protocol import matches, rank_scores
from vreid_ext.backends.reference.ranking import (
    feature_rank_counts,
    pair_distances,
    rank_counts,
    top_k,
)
from vreid_ext.backends.reference.region import hellinger_overlap, region_pool, temporal_pool
from vreid_ext.backends.reference.rerank import jaccard_graph, k_reciprocal
from vreid_ext.backends.reference.sta import (
    attention_map,
    block_scores,
    fuse,
    inter_frame_distance,
    sta_pool,
)

__all__ = [
    "attention_map",
    "batch_hard",
    "batch_hard_triplet",
    "block_scores",
    "feature_rank_counts",
    "fuse",
    "hellinger_overlap",
    "identity_hard",
    "inter_frame_distance",
    "jaccard_graph",
    "k_reciprocal",
    "matches",
    "mined_distance",
    "pair_distances",
    "part_distance",
    "rank_counts",
    "rank_scores",
    "region_pool",
    "sta_pool",
    "temporal_pool",
    "top_k",
]


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """The reference runs on every device and with every dtype that torch supports."""
    return None
