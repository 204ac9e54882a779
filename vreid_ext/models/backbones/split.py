"""Division of a backbone into two parts, for STAL."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn

from vreid_ext.models.backbones.base import Backbone


class Split(NamedTuple):
    """Result of `split_backbone`.

    Attributes:
        low: the layers up to the split; maps images (N,3,h,w) to (N, low.out_channels, H, W).
        part: copies of the layers after the split, up to and including the first one that halves the map.
            The part networks of STAL are copies of `part`.
        high: all layers after the split.
    """

    low: Backbone
    part: Backbone
    high: Backbone


def split_backbone(backbone: nn.Module, at: str | None = None, name: str | None = None) -> Split:
    """Split a backbone after the layer named `at`, by default after its `split_after`.

    `low` and `high` share the layers of the backbone; `part` holds copies. Errors contain the backbone's
    `name`.

    Raises:
        ValueError: the backbone cannot be split; or there is no such layer, or it is the last one.
    """
    if not isinstance(backbone, Backbone) or (at is None and backbone.split_after is None):
        raise ValueError(
            "backbone: expected one that can be split (a ResNet, also timm's or with IBN, an OSNet or "
            f"GoogLeNet), or the name of a layer as `split`, got {name or type(backbone).__name__!r}"
        )
    at = at or backbone.split_after
    layers = dict(backbone.named_children())
    names = list(layers)
    if at not in names[:-1]:
        known = ", ".join(names[:-1]) or "none"
        raise ValueError(f"split: expected one of the backbone's layers ({known}), got {at!r}")
    cut = names.index(at) + 1
    below, above = names[:cut], names[cut:]
    halving = next((n for n, name in enumerate(above, start=1) if _halves(layers[name])), len(above))
    low = Backbone({name: layers[name] for name in below}, 0)
    part = Backbone({name: deepcopy(layers[name]) for name in above[:halving]}, 0)
    high = Backbone({name: layers[name] for name in above}, backbone.out_channels)
    low.out_channels, part.out_channels = _channels(low, part)
    return Split(low, part, high)


def _halves(layer: nn.Module) -> bool:
    return any(getattr(module, "stride", 1) in (2, (2, 2)) for module in layer.modules())


@torch.no_grad()
def _channels(*chain: nn.Module) -> list[int]:
    """Number of output channels of each module in a chain, from a forward pass in evaluation mode."""
    channels = []
    x = next(chain[0].parameters()).new_zeros(1, 3, 64, 64)
    for module in chain:
        training = module.training
        x = module.eval()(x)
        module.train(training)
        channels.append(x.shape[1])
    return channels
