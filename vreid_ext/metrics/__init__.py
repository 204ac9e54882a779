"""Retrieval metrics, and what training is watched by."""

from vreid_ext.metrics.attributes import attribute_scores
from vreid_ext.metrics.dvdp import DVDP
from vreid_ext.metrics.ranking import rank
from vreid_ext.metrics.reid import ReIDResult, evaluate

__all__ = ["DVDP", "ReIDResult", "attribute_scores", "evaluate", "rank"]
