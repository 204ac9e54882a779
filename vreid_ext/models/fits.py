"""Which backbones a weight file fits."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from vreid_ext.models.backbones import backbone_names, build_backbone, from_timm
from vreid_ext.models.backbones.base import Backbone
from vreid_ext.weights import Fit, best_fit, expected_tensors
from vreid_ext.weights.origin import input_sizes

_VIT = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
_SWIN = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}


def backbone_fits(tensors: Mapping[str, Tensor]) -> dict[str, Fit]:
    """How far tensors fit the backbones, by name and shape, the best first.

    The candidates are all registered backbones and, for a ViT or a Swin transformer, the network of timm with
    its width, depth and patches, if timm is installed.

    Args:
        tensors: of a weight file (`weights.read_tensors`).

    Returns:
        name for `build_backbone` -> `weights.Fit`. A backbone of which no tensor fits is left out.
    """
    fits = {name: best_fit(_expected(name), tensors) for name in backbone_names()}
    guess = timm_name(tensors)
    if guess is not None and find_spec("timm") is not None:
        backbone = _built(guess, next(iter(input_sizes(tensors)), (None,))[:2])
        fits[guess] = best_fit(expected_tensors(backbone.original), from_timm.renamed(backbone, tensors))
    shares = {name: len(fit.fitting) / (len(fit.fitting) + len(fit.misshapen) + len(fit.missing))
              for name, fit in fits.items()}  # fmt: skip
    order = sorted((name for name in fits if shares[name]), key=lambda name: -shares[name])
    return {name: fits[name] for name in order}


def fitting_backbones(tensors: Mapping[str, Tensor]) -> list[str]:
    """The backbones whose tensors are all in a weight file."""
    return [name for name, fit in backbone_fits(tensors).items() if fit.complete]


def timm_name(tensors: Mapping[str, Tensor]) -> str | None:
    """The name for `build_backbone` of a ViT or a Swin transformer of a standard size; None for others."""
    kernels = ("patch_embed.proj.weight", "patch_embed.projection.weight", "conv1.weight")
    found = next((key for key in tensors if key.endswith(kernels) and tensors[key].dim() == 4), None)
    if found is None:
        return None
    width, patch = tensors[found].shape[0], tensors[found].shape[-1]
    stages = _blocks(tensors, r"(?:stages|layers)\.2\.blocks\.(\d+)\.attn\.")
    if stages and (width, stages) in _SWIN:
        table = next(value for key, value in tensors.items() if key.endswith("relative_position_bias_table"))
        window = (round(len(table) ** 0.5) + 1) // 2
        size = 384 if window == 12 else 224
        return f"timm:swin_{_SWIN[width, stages]}_patch{patch}_window{window}_{size}"
    clip = any(key.endswith(("class_embedding",)) for key in tensors)
    blocks = _blocks(tensors, r"(?:^|\.)(?:blocks|resblocks)\.(\d+)\.attn\.(?:qkv|in_proj)")
    if blocks and width in _VIT and blocks == (24 if width == 1024 else 32 if width == 1280 else 12):
        return f"timm:vit_{_VIT[width]}_patch{patch}_{'clip_' if clip else ''}224"
    return None


def _blocks(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for key in tensors if (found := re.search(pattern, key))})


@cache
def _expected(name: str) -> dict[str, Tensor]:
    return expected_tensors(_built(name, (None,)).original)


def _built(name: str, size: tuple[int | None, ...]) -> Backbone:
    given = None if None in size else [side for side in size if side is not None]
    with torch.device("meta"):
        return build_backbone(name, last_stride=2, input_size=given)
