"""Functional ops: argument checks, choice of the backend and gradient of every kernel."""

import torch.fx

from vreid_ext.ops.mining import (
    BatchHard,
    IdentityHard,
    batch_hard,
    batch_hard_triplet,
    dvdp,
    identity_hard,
    mined_distance,
)
from vreid_ext.ops.part_metric import part_distance
from vreid_ext.ops.ranking import feature_rank_counts, pair_distances, rank_counts, top_k
from vreid_ext.ops.region import RegionPool, hellinger_overlap, region_pool, temporal_pool
from vreid_ext.ops.rerank import JaccardGraph, jaccard_graph, k_reciprocal
from vreid_ext.ops.sta import (
    STAPool,
    attention_map,
    block_scores,
    fuse,
    inter_frame_distance,
    sta_pool,
)

__all__ = [
    "BatchHard",
    "IdentityHard",
    "JaccardGraph",
    "RegionPool",
    "STAPool",
    "attention_map",
    "batch_hard",
    "batch_hard_triplet",
    "block_scores",
    "dvdp",
    "feature_rank_counts",
    "fuse",
    "hellinger_overlap",
    "identity_hard",
    "inter_frame_distance",
    "jaccard_graph",
    "k_reciprocal",
    "mined_distance",
    "pair_distances",
    "part_distance",
    "rank_counts",
    "region_pool",
    "sta_pool",
    "temporal_pool",
    "top_k",
]

# `torch.fx.symbolic_trace` records each call `ops.name(...)` as one node.
for _name in __all__:
    if not isinstance(globals()[_name], type):
        torch.fx.wrap(_name)
