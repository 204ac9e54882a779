"""Features of tracklets: rows in memory or in files, and the format of folders of features on disk."""

from vreid_ext.features.rows import Features, Shard
from vreid_ext.features.stored import StoredFeatures, StoredRows

__all__ = ["Features", "Shard", "StoredFeatures", "StoredRows"]
