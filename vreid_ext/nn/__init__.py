"""Layers on top of the ops."""

from vreid_ext.nn.asta import SpatioTemporalAttention, spatio_temporal_pool
from vreid_ext.nn.consensus import ConsensusPool, ConsensusPooling
from vreid_ext.nn.gem import GeMPooling
from vreid_ext.nn.parts import part_boxes, pool_parts, standing_boxes
from vreid_ext.nn.region import RegionAttention
from vreid_ext.nn.sta import STAPooling
from vreid_ext.nn.stal import (
    Parts,
    QualityNetwork,
    ResidualAttention,
    aggregate_parts,
    normalise_scores,
)

__all__ = [
    "ConsensusPool",
    "ConsensusPooling",
    "GeMPooling",
    "Parts",
    "QualityNetwork",
    "RegionAttention",
    "ResidualAttention",
    "STAPooling",
    "SpatioTemporalAttention",
    "aggregate_parts",
    "normalise_scores",
    "part_boxes",
    "pool_parts",
    "spatio_temporal_pool",
    "standing_boxes",
]
