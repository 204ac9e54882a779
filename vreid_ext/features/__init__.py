"""Features of tracklets in memory, in files, and in folders on disk."""

from vreid_ext.features.rows import Features, Shard
from vreid_ext.features.stored import StoredFeatures, StoredRows

__all__ = ["Features", "Shard", "StoredFeatures", "StoredRows"]
