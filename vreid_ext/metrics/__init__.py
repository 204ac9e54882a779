"""Retrieval metrics."""

from vreid_ext.metrics.ranking import rank
from vreid_ext.metrics.reid import ReIDResult, evaluate

__all__ = ["ReIDResult", "evaluate", "rank"]
