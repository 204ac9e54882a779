"""Image backbones that return feature maps, and their initial weights."""

from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from vreid_ext.weights import expected_tensors, matched, read_tensors

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESNETS = ("resnet18", "resnet34", "resnet50")
BACKBONES = (*_RESNETS, "googlenet", "mobilenet_v2")


class Backbone(nn.Sequential):
    """Convolutional network that maps images (N,3,h,w) to feature maps (N, out_channels, H, W).

    Parameters have the same names as in torchvision, so its state dicts can be loaded.
    """

    def __init__(self, layers: Mapping[str, nn.Module], out_channels: int) -> None:
        super().__init__(OrderedDict(layers))
        self.out_channels = out_channels


def build_backbone(name: str, weights: str | Path = "none", last_stride: int = 1) -> Backbone:
    """Build a torchvision network without its pooling and classifier.

    Args:
        name: "resnet18", "resnet34", "resnet50", "googlenet" (torchvision's variant with batch
            normalization) or "mobilenet_v2".
        weights: "none" for torchvision's random initialization; "imagenet" for torchvision's ImageNet
            weights (version 1), cached or downloaded; or the path of a `.safetensors` file or of a
            `.pth` / `.pt` state dict or checkpoint, which is loaded with `weights_only=True`; see
            `weights.read_weights`. Tensors are matched by name, ignoring a common prefix (for example
            `backbone.` in a checkpoint of this package). If the names differ, tensors are matched by order,
            with a warning, provided that all shapes and the last components of all names agree. Additional
            tensors, such as those of a classifier, are ignored.
        last_stride: stride of the last stage. 1 gives maps of h/16 x w/16, as is usual in re-identification
            since Sun et al. 2018 (and in STA); 2, the value of torchvision, gives h/32 x w/32. GoogLeNet
            supports only a stride of 2.

    Raises:
        ImportError: torchvision is not installed.
        FileNotFoundError: no such file. If the download for "imagenet" fails, the message names the URL and
            the path at which the file is expected.
        ValueError: unknown name or stride, or weights that do not match.
    """
    if name not in BACKBONES:
        raise ValueError(f"name: expected one of {', '.join(BACKBONES)}, got {name!r}")
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride: expected 1 or 2, got {last_stride!r}")
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError("backbones need torchvision: pip install 'vreid-ext[train]'") from error

    if name == "googlenet" and last_stride != 2:
        raise ValueError(f"last_stride: expected 2, got {last_stride} for googlenet")
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    network = models.get_model(name, weights=None, **options)
    last_stage: nn.Module
    if name == "googlenet":
        layers = {"rescale": _Rescale()}
        head = ("avgpool", "dropout", "fc")
        layers |= {key: layer for key, layer in network.named_children() if key not in head and layer}
        out_channels, last_stage = network.fc.in_features, nn.Identity()
    elif name in _RESNETS:
        layers = {key: layer for key, layer in network.named_children() if key not in ("avgpool", "fc")}
        out_channels, last_stage = network.fc.in_features, network.layer4
    else:
        layers = {"features": network.features}
        out_channels, last_stage = network.last_channel, network.features[14:]
    for layer in last_stage.modules():
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            layer.stride = (last_stride, last_stride)

    backbone = Backbone(layers, out_channels)
    if weights == "imagenet":
        _load(backbone, _imagenet(models.get_model_weights(name)["IMAGENET1K_V1"]), source=f"ImageNet {name}")
    elif weights != "none":
        _load(backbone, read_tensors(Path(weights)), source=str(weights))
    return backbone


def resolve_backbone(
    backbone: str | nn.Module, weights: str | Path, last_stride: int
) -> tuple[nn.Module, int]:
    """Turn the `backbone` argument of a model into a module and its number of output channels C.

    Args:
        backbone: a name for `build_backbone`, or a module (N,3,h,w) -> (N,C,H,W) with an `out_channels`.
        weights, last_stride: passed to `build_backbone`; ignored if `backbone` is a module.

    Raises:
        ValueError: the module has no int `out_channels`. For a name, see also `build_backbone`.
    """
    module = build_backbone(backbone, weights, last_stride) if isinstance(backbone, str) else backbone
    channels = getattr(module, "out_channels", None)
    if not isinstance(channels, int):
        got = type(module).__name__
        raise ValueError(f"backbone: expected a name or a module with an int out_channels, got {got}")
    return module, channels


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


# Last layer before the split in STAL. Its maps are 14 x 14 for 224 x 224 images, as in Table I of the paper.
_SPLITS = {**dict.fromkeys(_RESNETS, "layer3"), "googlenet": "inception4b"}


def split_backbone(backbone: Backbone, at: str) -> Split:
    """Split a backbone after the layer named `at`.

    `low` and `high` share the layers of the backbone; `part` holds copies.

    Raises:
        ValueError: there is no such layer, or it is the last one.
    """
    names = [name for name, _ in backbone.named_children()]
    if at not in names[:-1]:
        raise ValueError(f"split: expected one of the backbone's layers {', '.join(names[:-1])}, got {at!r}")
    layers = dict(backbone.named_children())
    cut = names.index(at) + 1
    below, above = names[:cut], names[cut:]
    halving = next((n for n, name in enumerate(above, start=1) if _halves(layers[name])), len(above))
    low = Backbone({name: layers[name] for name in below}, 0)
    part = Backbone({name: deepcopy(layers[name]) for name in above[:halving]}, 0)
    high = Backbone({name: layers[name] for name in above}, backbone.out_channels)
    low.out_channels, part.out_channels = _channels(low, part)
    return Split(low, part, high)


def split_name(backbone: str) -> str:
    """Name of the layer after which STAL splits the backbone with this name.

    Raises:
        ValueError: no split is defined for this backbone.
    """
    if backbone not in _SPLITS:
        raise ValueError(f"backbone: expected one of {', '.join(_SPLITS)}, got {backbone!r}")
    return _SPLITS[backbone]


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


class _Rescale(nn.Module):
    """Convert images normalized with the ImageNet mean and standard deviation to [-1, 1].

    torchvision's GoogLeNet weights were trained on that range.
    """

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
        return (x * std + mean - 0.5) / 0.5


def _imagenet(weights: Any) -> Mapping[str, Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # includes URLError and all network errors
        file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)
        raise FileNotFoundError(
            f"weights: 'imagenet' is not in torch's cache and could not be downloaded ({error}); "
            f"put {weights.url} at {file}, or pass the path of a file"
        ) from error


def _load(backbone: Backbone, state: Mapping[str, Tensor], source: str) -> None:
    try:
        chosen = matched(expected_tensors(backbone), state, source)
    except ValueError as error:
        from vreid_ext.models.fits import fitting_backbones  # which builds all backbones

        fitting = fitting_backbones(state)
        hint = f"they fit backbone={fitting[0]!r}" if fitting else "they fit no backbone of this package"
        raise ValueError(f"{error}; {hint}") from error
    # Not strict: the batch counters are missing, as `read_tensors` drops them.
    backbone.load_state_dict(chosen, strict=False)
