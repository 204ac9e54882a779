"""Image backbones that return feature maps: one file per family, one table of names."""

from vreid_ext.models.backbones import from_torchvision, osnet, resnet_ibn  # noqa: F401 register their names
from vreid_ext.models.backbones.base import Backbone
from vreid_ext.models.backbones.build import build_backbone, clip_projection, resolve_backbone
from vreid_ext.models.backbones.from_timm import TokenBackbone, Tokens
from vreid_ext.models.backbones.registry import backbone_names, register_backbone
from vreid_ext.models.backbones.split import Split, split_backbone

__all__ = [
    "Backbone",
    "Split",
    "TokenBackbone",
    "Tokens",
    "backbone_names",
    "build_backbone",
    "clip_projection",
    "register_backbone",
    "resolve_backbone",
    "split_backbone",
]
