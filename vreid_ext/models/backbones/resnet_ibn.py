"""ResNet-IBN-a: Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net (Pan, Luo, Shi,
Tang; ECCV 2018).

The parameters have the names of the authors' code and of fast-reid, so their files are loaded by name.
"""

from functools import partial

import torch
from torch import Tensor, nn

from vreid_ext.models.backbones.base import Backbone
from vreid_ext.models.backbones.from_torchvision import resnet
from vreid_ext.models.backbones.published import from_url
from vreid_ext.models.backbones.registry import register_backbone

_RELEASE = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
_FILES = {
    "resnet18": "resnet18_ibn_a-2f571257.pth",
    "resnet34": "resnet34_ibn_a-94bc1577.pth",
    "resnet50": "resnet50_ibn_a-d9d0bb7b.pth",
    "resnet101": "resnet101_ibn_a-59ea0ac6.pth",
}


class IBN(nn.Module):
    """Instance normalization of the first half of the channels, batch normalization of the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sizes = [channels // 2, channels - channels // 2]
        self.IN = nn.InstanceNorm2d(self.sizes[0], affine=True)
        self.BN = nn.BatchNorm2d(self.sizes[1])

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.split(self.sizes, 1)
        return torch.cat([self.IN(first), self.BN(second)], 1)


def _register(name: str, file: str) -> None:
    @register_backbone(f"{name}_ibn_a", partial(from_url, _RELEASE + file))
    def factory(last_stride: int, *, ceil_pool: bool = False) -> Backbone:
        """`ceil_pool`: the max pooling of fast-reid (no padding, sizes rounded up)."""
        backbone = resnet(name, last_stride)
        for stage in ("layer1", "layer2", "layer3"):  # the paper leaves out the last one
            for block in backbone.get_submodule(stage).children():
                assert isinstance(block.bn1, nn.BatchNorm2d)
                block.bn1 = IBN(block.bn1.num_features)
        if ceil_pool:
            backbone.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
        return backbone


for _name, _file in _FILES.items():
    _register(_name, _file)
