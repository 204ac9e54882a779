"""Backbones of torchvision: ResNet (He et al. 2016), GoogLeNet (Szegedy et al. 2015), MobileNetV2 (2018)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from vreid_ext.models.backbones.base import Backbone
from vreid_ext.models.backbones.published import from_url
from vreid_ext.models.backbones.registry import register_backbone
from vreid_ext.models.backbones.strides import keep_size

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _network(name: str, **options: Any) -> Any:
    return _models().get_model(name, weights=None, **options)


def _imagenet(name: str) -> Mapping[str, Tensor]:
    """torchvision's weights (version 1)."""
    return from_url(_models().get_model_weights(name)["IMAGENET1K_V1"].url)


def _models() -> Any:
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError("backbones need torchvision: pip install 'vreid-ext[train]'") from error
    return models


class _Rescale(nn.Module):
    """Convert images normalized with the ImageNet mean and standard deviation to [-1, 1].

    torchvision's GoogLeNet weights were trained on that range.
    """

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
        return (x * std + mean - 0.5) / 0.5


def resnet(name: str, last_stride: int) -> Backbone:
    """A ResNet of torchvision without its pooling and classifier."""
    network = _network(name)
    layers = {key: layer for key, layer in network.named_children() if key not in ("avgpool", "fc")}
    if last_stride == 1:
        keep_size(network.layer4)
    # The maps after layer3 are 14 x 14 for 224 x 224 images, as in Table I of STAL.
    return Backbone(layers, network.fc.in_features, split_after="layer3")


def _register_resnet(name: str) -> None:
    @register_backbone(name, partial(_imagenet, name))
    def factory(last_stride: int) -> Backbone:
        return resnet(name, last_stride)


for _name in ("resnet18", "resnet34", "resnet50"):
    _register_resnet(_name)


@register_backbone("googlenet", partial(_imagenet, "googlenet"))
def _googlenet(last_stride: int) -> Backbone:
    if last_stride != 2:
        raise ValueError(f"last_stride: expected 2, got {last_stride} for googlenet")
    network = _network("googlenet", aux_logits=False, init_weights=True)
    head = ("avgpool", "dropout", "fc")
    layers = {"rescale": _Rescale()}
    layers |= {key: layer for key, layer in network.named_children() if key not in head and layer}
    return Backbone(layers, network.fc.in_features, split_after="inception4b")


@register_backbone("mobilenet_v2", partial(_imagenet, "mobilenet_v2"))
def _mobilenet(last_stride: int) -> Backbone:
    network = _network("mobilenet_v2")
    if last_stride == 1:
        keep_size(network.features[14:])
    # The maps after this block are 14 x 14 for 224 x 224 images, as those after layer3 of a ResNet.
    return Backbone({"features": network.features}, network.last_channel, split_after="features.13")
