"""Image backbones that return feature maps, and the weights they start from."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

_RESNETS = ("resnet18", "resnet34", "resnet50")
BACKBONES = (*_RESNETS, "mobilenet_v2")


class Backbone(nn.Sequential):
    """Convolutional trunk: images (N,3,h,w) to maps (N, out_channels, H, W).

    Parameter names are torchvision's, so its state dicts fit by name.
    """

    def __init__(self, layers: Mapping[str, nn.Module], out_channels: int) -> None:
        super().__init__(OrderedDict(layers))
        self.out_channels = out_channels


def build_backbone(name: str, weights: str | Path = "none", last_stride: int = 1) -> Backbone:
    """Build a torchvision network without its pooling and classifier.

    Args:
        name: "resnet18", "resnet34", "resnet50" or "mobilenet_v2".
        weights: "none" for the initialisation torchvision draws; "imagenet" for torchvision's ImageNet
            weights (version 1), from its cache or downloaded; or the path of a `.safetensors` file or of a
            `.pth` / `.pt` state dict, which is read with `weights_only=True`. Entries of a file are matched
            by name (a checkpoint of this package by its `backbone.`), else by their order if all shapes
            agree; what follows the trunk's (a classifier) is not used.
        last_stride: stride of the last stage: 1 gives maps of h/16 x w/16, as in re-identification since
            Sun et al. 2018 (and STA); 2, torchvision's own, of h/32 x w/32.

    Raises:
        ImportError: torchvision is missing.
        FileNotFoundError: no such file; for "imagenet" without a network, which file to put where.
        ValueError: unknown name or stride, or weights that do not fit.
    """
    if name not in BACKBONES:
        raise ValueError(f"name: got {name!r}, wanted one of {', '.join(BACKBONES)}")
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride: got {last_stride!r}, wanted 1 or 2")
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError("backbones need torchvision: pip install 'vreid-ext[train]'") from error

    network = models.get_model(name, weights=None)
    if name in _RESNETS:
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
        _load(backbone, _read(Path(weights)), source=str(weights))
    return backbone


def _imagenet(weights: Any) -> Mapping[str, Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # URLError and every network failure among them
        file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)
        raise FileNotFoundError(
            f"weights: 'imagenet' is not in torch's cache and could not be downloaded ({error}); "
            f"put {weights.url} at {file}, or pass the path of a file"
        ) from error


def _read(path: Path) -> Mapping[str, Tensor]:
    """A state dict from a file; nothing is unpickled but tensors."""
    if not path.is_file():
        raise FileNotFoundError(f"weights: got {str(path)!r}, wanted 'none', 'imagenet' or an existing file")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ImportError(f"{path} needs safetensors: pip install 'vreid-ext[train]'") from error
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):  # how training scripts commonly wrap it
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise ValueError(f"weights: {path} holds a {type(state).__name__}, wanted a state dict")
    return state


def _load(backbone: Backbone, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into the backbone, matched by name (less "module." and "backbone."), else by order."""
    wanted = _tensors(backbone.state_dict())
    given = {
        key.removeprefix("module.").removeprefix("backbone."): value for key, value in _tensors(state).items()
    }
    if not wanted.keys() <= given.keys():
        if len(given) < len(wanted):
            raise ValueError(f"weights: {source} has {len(given)} tensors, wanted at least {len(wanted)}")
        by_order = list(given.items())[: len(wanted)]
        for (theirs, value), (ours, target) in zip(by_order, wanted.items(), strict=True):
            if value.shape != target.shape:
                raise ValueError(
                    f"weights: {source} fits neither by name nor by order: {theirs!r} has shape "
                    f"{tuple(value.shape)} where {ours!r} wants {tuple(target.shape)}"
                )
        given = dict(zip(wanted, (value for _, value in by_order), strict=True))
    for key, target in wanted.items():
        shape = given[key].shape
        if shape != target.shape:
            raise ValueError(
                f"weights: {source} has {key!r} of shape {tuple(shape)}, wanted {tuple(target.shape)}"
            )
    backbone.load_state_dict({key: given[key] for key in wanted}, strict=False)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Without the batch counters, which old files lack and momentum-averaged statistics do not need."""
    return {
        key: value
        for key, value in state.items()
        if isinstance(value, Tensor) and not key.endswith("num_batches_tracked")
    }
