"""Complete models, one file per paper, and their backbones."""

from vreid_ext.models.asta import ASTA
from vreid_ext.models.backbones import (
    Backbone,
    TokenBackbone,
    Tokens,
    backbone_names,
    build_backbone,
    register_backbone,
)
from vreid_ext.models.drsta import DRSTA, ReceptiveFields
from vreid_ext.models.output import TrainingOutput
from vreid_ext.models.part_consensus import PartConsensus
from vreid_ext.models.registry import build_model, model_factory, model_names, register_model
from vreid_ext.models.sta import STA
from vreid_ext.models.stal import STAL, PartScores
from vreid_ext.models.tfclip import TFCLIP

__all__ = [
    "ASTA",
    "DRSTA",
    "STA",
    "STAL",
    "TFCLIP",
    "Backbone",
    "PartConsensus",
    "PartScores",
    "ReceptiveFields",
    "TokenBackbone",
    "Tokens",
    "TrainingOutput",
    "backbone_names",
    "build_backbone",
    "build_model",
    "model_factory",
    "model_names",
    "register_backbone",
    "register_model",
]
