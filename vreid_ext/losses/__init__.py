"""Training losses.

Losses are computed in float32 or wider, even under autocast. They do not synchronize with the device, except
where they check values: AITL checks its first batch, the center loss its targets, OIM its targets and
features, and CrossBatchMemory the embeddings that it stores.
"""

from vreid_ext.distributed import gather_with_gradient
from vreid_ext.losses.aitl import AITLoss, ITLoss
from vreid_ext.losses.attributes import AttributeLoss
from vreid_ext.losses.center import CenterLoss
from vreid_ext.losses.cross_entropy import CrossEntropyLoss
from vreid_ext.losses.diversity import HellingerDiversity
from vreid_ext.losses.drawn import DrawnTripletLoss
from vreid_ext.losses.inter_frame import InterFrameRegularizer
from vreid_ext.losses.memory import CrossBatchMemory
from vreid_ext.losses.oim import OIMLoss
from vreid_ext.losses.part_triplet import PartTripletLoss
from vreid_ext.losses.triplet import TripletLoss

__all__ = [
    "AITLoss",
    "AttributeLoss",
    "CenterLoss",
    "CrossBatchMemory",
    "CrossEntropyLoss",
    "DrawnTripletLoss",
    "HellingerDiversity",
    "ITLoss",
    "InterFrameRegularizer",
    "OIMLoss",
    "PartTripletLoss",
    "TripletLoss",
    "gather_with_gradient",
]
