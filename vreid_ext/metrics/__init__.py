"""Retrieval metrics, and metrics to monitor training."""

from typing import TYPE_CHECKING, Any

from vreid_ext.features.rows import Shard
from vreid_ext.features.stored import StoredFeatures
from vreid_ext.metrics.attributes import attribute_scores
from vreid_ext.metrics.bootstrap import Compared, Interval, compare
from vreid_ext.metrics.clustering import Clusters, ClusterScores, cluster
from vreid_ext.metrics.dvdp import DVDP
from vreid_ext.metrics.protocol import JunkRule
from vreid_ext.metrics.ranking import rank
from vreid_ext.metrics.reid import ReIDResult, evaluate, evaluate_distances
from vreid_ext.metrics.verify import CameraPair, OperatingPoint, Verification, verification

if TYPE_CHECKING:
    from vreid_ext.metrics.torchmetric import ReIDMetric

__all__ = [
    "DVDP",
    "CameraPair",
    "ClusterScores",
    "Clusters",
    "Compared",
    "Interval",
    "JunkRule",
    "OperatingPoint",
    "ReIDMetric",
    "ReIDResult",
    "Shard",
    "StoredFeatures",
    "Verification",
    "attribute_scores",
    "cluster",
    "compare",
    "evaluate",
    "evaluate_distances",
    "rank",
    "verification",
]


def __getattr__(name: str) -> Any:
    # Lazy, because its base class requires torchmetrics.
    if name != "ReIDMetric":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vreid_ext.metrics.torchmetric import ReIDMetric

    return ReIDMetric
