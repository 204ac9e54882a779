"""Layer-wise learning rate decay of a backbone."""

import pytest
import torch

from vreid_ext.engine.optim import build_optimizer, set_learning_rate
from vreid_ext.engine.recipe import Group, Optim
from vreid_ext.models import STA, STAL

pytest.importorskip("torchvision")


def rates(model, optim):
    """Learning rate of each parameter by name."""
    optimizer = build_optimizer(model, optim)
    names = {id(value): name for name, value in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def vit():
    pytest.importorskip("timm")
    return STA(
        3, pooling="avg", backbone="timm:vit_tiny_patch16_224", input_size=(64, 32),
        backbone_options={"depth": 3, "embed_dim": 48, "num_heads": 2},
    )  # fmt: skip


def test_rates_of_a_vit_fall_towards_its_first_layer():
    model = vit()
    found = rates(model, Optim(lr=1.0, layer_decay=0.5))
    assert found.keys() == {name for name, value in model.named_parameters() if value.requires_grad}
    assert found["backbone.network.patch_embed.proj.weight"] == 0.5**4
    assert found["backbone.network.pos_embed"] == 0.5**4
    assert [found[f"backbone.network.blocks.{n}.mlp.fc1.weight"] for n in range(3)] == [0.125, 0.25, 0.5]
    assert found["classifier.weight"] == found["fc.weight"] == 1


def test_layers_of_a_convolutional_network_and_groups():
    model = STA(3, backbone="resnet18")
    groups = [Group(["backbone"], 0.1)]
    found = rates(model, Optim(lr=1.0, layer_decay=0.5, groups=groups))
    assert found["backbone.layer4.0.conv1.weight"] == pytest.approx(0.1 * 0.5)
    assert found["backbone.layer3.0.conv1.weight"] == pytest.approx(0.1 * 0.25)
    assert found["fc.weight"] == 1


def test_the_schedule_keeps_the_factors():
    optimizer = build_optimizer(vit(), Optim(lr=1.0, layer_decay=0.5))
    set_learning_rate(optimizer, 0.01)
    assert {round(group["lr"] / 0.01, 6) for group in optimizer.param_groups} == {0.0625, 0.125, 0.25, 0.5, 1}


def test_models_without_one_backbone():
    optim = Optim(layer_decay=0.5)
    with pytest.raises(ValueError, match=r"^optim.layer_decay: expected 1 .*, got 0.5 and 0 backbones"):
        build_optimizer(torch.nn.Linear(2, 2), optim)
    with pytest.raises(ValueError, match=r"^optim.layer_decay: expected 1 .*, got 0.5 and 2 backbones"):
        build_optimizer(STAL(3, backbone="osnet_x0_25", branches="global"), optim)
