"""OSNet and ResNet-IBN have the parameters and outputs of torchreid, IBN-Net and fast-reid."""

import importlib

import pytest
import torch
from torch import nn

from vreid_ext.models import STAL, backbone_names, build_backbone

pytest.importorskip("torchvision")
OSNETS = [name for name in backbone_names() if name.startswith("osnet")]


def torchreids(name):
    pytest.importorskip("pyppbox_torchreid")
    module = importlib.import_module(f"pyppbox_torchreid.models.osnet{'_ain' if 'ain' in name else ''}")
    network = getattr(module, name)(num_classes=5, pretrained=False)
    for layer in network.modules():  # not the initial values, which hide exchanged layers
        if isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("name", OSNETS)
def test_a_checkpoint_of_torchreid_gives_its_maps(name, tmp_path):
    network = torchreids(name)
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "model.pth.tar")
    backbone = build_backbone(name, tmp_path / "model.pth.tar").eval()
    trunk = {key for key in network.state_dict() if not key.startswith(("fc.", "classifier."))}
    assert backbone.state_dict().keys() == trunk
    images = torch.rand(2, 3, 128, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), network(images, return_featuremaps=True))


def test_all_osnets_of_torchreid_are_there():
    assert len(OSNETS) == 9


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_ain_x0_25"])
def test_maps_train_and_can_be_split(name):
    backbone = build_backbone(name)
    backbone(torch.rand(2, 3, 64, 32)).square().mean().backward()
    assert all(value.grad is not None for value in backbone.parameters())
    model = STAL(3, backbone=name, part_dim=8, roi_size=4)
    labels = torch.tensor([0, 0, 1, 1])
    output = model(torch.rand(4, 2, 3, 64, 32), label=labels)
    (output.feature.sum() + sum(output.extras.values())).backward()
    assert model.low(torch.rand(2, 3, 224, 224)).shape[2:] == (14, 14)


class ReferenceBlock(nn.Module):
    """The bottleneck of IBN-Net and fast-reid, in their order of operations."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        out, block = self.block.conv1(x), self.block
        half = out.shape[1] // 2
        instance = (out[:, :half] - out[:, :half].mean((2, 3), keepdim=True)) / (
            out[:, :half].var((2, 3), keepdim=True, correction=0) + 1e-5
        ).sqrt()
        first = instance * block.bn1.IN.weight[:, None, None] + block.bn1.IN.bias[:, None, None]
        out = torch.cat([first, block.bn1.BN(out[:, half:])], 1).relu()
        out = block.bn3(block.conv3(block.bn2(block.conv2(out)).relu()))
        return (out + (x if block.downsample is None else block.downsample(x))).relu()


def test_resnet_ibn():
    backbone = build_backbone("resnet50_ibn_a", last_stride=2).double().eval()
    for layer in backbone.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    x = torch.rand(1, 64, 16, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.layer1[0](x), ReferenceBlock(backbone.layer1[0])(x))
    names = backbone.state_dict().keys()
    # Names of the authors' resnet50_ibn_a; fast-reid has the same in its backbone.
    assert {"layer1.0.bn1.IN.weight", "layer3.5.bn1.BN.running_mean", "layer4.2.bn1.running_var"} <= names
    assert sum("bn1.IN.weight" in name for name in names) == 3 + 4 + 6


def test_a_checkpoint_of_fast_reid(tmp_path):
    backbone = build_backbone("resnet18_ibn_a", ceil_pool=True)
    state = {f"backbone.{key}": torch.rand_like(value) for key, value in backbone.state_dict().items()
             if value.is_floating_point()}  # fmt: skip
    torch.save({"model": state | {"heads.weight": torch.zeros(3, 512)}}, tmp_path / "model_final.pth")
    loaded = build_backbone("resnet18_ibn_a", tmp_path / "model_final.pth", ceil_pool=True)
    assert all(torch.equal(loaded.state_dict()[key.removeprefix("backbone.")], state[key]) for key in state)
    assert loaded.maxpool(torch.rand(1, 1, 8, 8)).shape == (1, 1, 4, 4)
    assert loaded.maxpool.padding == 0


def test_no_published_weights():
    with pytest.raises(
        ValueError, match=r"^weights: expected 'none' or a file for osnet_x0_25, got 'imagenet'"
    ):
        build_backbone("osnet_x0_25", "imagenet")


def test_options_are_checked():
    with pytest.raises(
        ValueError, match=r"^ceil_pol: expected an option of backbone .* did you mean 'ceil_pool'"
    ):
        build_backbone("resnet18_ibn_a", ceil_pol=True)
