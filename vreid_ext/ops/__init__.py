"""Functional ops: schema, gradient, backend choice and documentation of every kernel."""

from vreid_ext.ops.part_metric import part_distance
from vreid_ext.ops.sta import (
    STAPool,
    attention_map,
    block_scores,
    fuse,
    inter_frame_distance,
    sta_pool,
)

__all__ = [
    "STAPool",
    "attention_map",
    "block_scores",
    "fuse",
    "inter_frame_distance",
    "part_distance",
    "sta_pool",
]
