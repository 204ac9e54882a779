"""Training losses. They compute in float32 or wider whatever autocast says, and never wait for the device."""

from vreid_ext.losses.cross_entropy import CrossEntropyLoss
from vreid_ext.losses.inter_frame import InterFrameRegularizer
from vreid_ext.losses.triplet import TripletLoss

__all__ = ["CrossEntropyLoss", "InterFrameRegularizer", "TripletLoss"]
