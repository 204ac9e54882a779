"""Layers over the ops."""

from vreid_ext.nn.asta import SpatioTemporalAttention, spatio_temporal_pool
from vreid_ext.nn.region import RegionAttention
from vreid_ext.nn.sta import STAPooling

__all__ = ["RegionAttention", "STAPooling", "SpatioTemporalAttention", "spatio_temporal_pool"]
