"""Division of a backbone into two parts, for STAL."""

from collections import OrderedDict
from collections.abc import Mapping
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
            "backbone: expected one that can be split (a ResNet, also timm's or with IBN, an OSNet, "
            "GoogLeNet or MobileNetV2), or the name of a layer as `split`, "
            f"got {name or type(backbone).__name__!r}"
        )
    at = at or backbone.split_after
    layers = _layers(backbone)
    names = list(layers)
    if at not in names[:-1]:
        known = ", ".join(names[:-1]) or "none"
        raise ValueError(f"split: expected one of the backbone's layers ({known}), got {at!r}")
    cut = names.index(at) + 1
    below, above = names[:cut], names[cut:]
    halving = next((n for n, name in enumerate(above, start=1) if _halves(layers[name])), len(above))
    low = _of_layers({name: layers[name] for name in below}, 0)
    part = _of_layers({name: deepcopy(layers[name]) for name in above[:halving]}, 0)
    high = _of_layers({name: layers[name] for name in above}, backbone.out_channels)
    low.out_channels, part.out_channels = _channels(low, part)
    return Split(low, part, high)


def _layers(backbone: Backbone) -> dict[str, nn.Module]:
    """The layers by name. A single Sequential counts as its layers, with names such as "features.13"."""
    layers = dict(backbone.named_children())
    if len(layers) != 1:
        return layers
    ((name, only),) = layers.items()
    inner = only.named_children() if isinstance(only, nn.Sequential) else ()
    return {f"{name}.{key}": layer for key, layer in inner}


def _of_layers(layers: Mapping[str, nn.Module], out_channels: int) -> Backbone:
    """The inverse of `_layers`: the parameters keep the names that they have in the whole backbone."""
    parent = next(iter(layers)).rpartition(".")[0]
    if not parent:
        return Backbone(layers, out_channels)
    inner = OrderedDict((name.removeprefix(f"{parent}."), layer) for name, layer in layers.items())
    return Backbone({parent: nn.Sequential(inner)}, out_channels)


def _halves(layer: nn.Module) -> bool:
    # A block may have an attribute `stride` that its layers no longer have (`last_stride`).
    leaves = (module for module in layer.modules() if not any(True for _ in module.children()))
    return any(getattr(leaf, "stride", 1) in (2, (2, 2)) for leaf in leaves)


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
