"""`vreid weights`, and the error of weights of another architecture."""

import json

import pytest
import torch
import torchvision

from vreid_ext.engine.config import load_recipe
from vreid_ext.engine.weights import convert_weights, describe_weights
from vreid_ext.models import build_backbone


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """As torchreid writes one: a ResNet with a classifier of 751 people."""
    state = torchvision.models.resnet18(num_classes=2).state_dict()
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    state |= {"classifier.weight": torch.zeros(751, 512), "classifier.bias": torch.zeros(751)}
    path = tmp_path_factory.mktemp("weights") / "model.pth.tar-60"
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save({"state_dict": wrapped, "epoch": 60, "rank1": 0.5}, path)
    return path


def test_the_description(checkpoint):
    found = describe_weights(checkpoint)
    assert (found["package"], found["wrapper"], found["prefix"]) == ("torchreid", ["state_dict"], "module.")
    assert found["classifier"] == {"name": "module.classifier.weight", "classes": 751}
    assert found["tensors"] == 102
    assert found["parts"]["layer1"] == 20
    fits = found["backbones"]
    assert next(iter(fits)) == "resnet18"
    assert fits["resnet18"] == {
        "complete": True, "prefix": "module.", "fit": 100, "other_shape": 0, "missing": 0, "unused": 2,
    }  # fmt: skip
    assert not fits["resnet50"]["complete"]
    assert sum(fits["resnet50"][key] for key in ("fit", "other_shape", "missing")) == 265


def test_the_conversion_fits_the_same_backbone(checkpoint, tmp_path):
    found = convert_weights(checkpoint, tmp_path / "net.safetensors")
    assert json.loads((tmp_path / "net.json").read_text()) == found
    again = describe_weights(tmp_path / "net.safetensors")
    assert (again["tensors"], again["prefix"], again["package"]) == (102, "", "torchreid")
    one, other = (build_backbone("resnet18", path) for path in (checkpoint, tmp_path / "net.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))
    with pytest.raises(ValueError, match=r"^--to: expected a file NAME.safetensors, got .*net.pth'"):
        convert_weights(checkpoint, tmp_path / "net.pth")


def test_tensors_that_share_memory_are_converted(tmp_path):
    shared = torch.ones(3)
    torch.save({"a": shared, "b": shared}, tmp_path / "net.pth")
    assert convert_weights(tmp_path / "net.pth", tmp_path / "net.safetensors")["tensors"] == 2
    assert describe_weights(tmp_path / "net.safetensors")["tensors"] == 2


def test_another_architecture_is_counted_and_one_that_fits_is_named(checkpoint, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"resnet34|expected 180 .*; 100 of 180 tensors fit .*; they fit backbone='resnet18'$",
    ):
        build_backbone("resnet34", checkpoint)
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"; 0 of 100 tensors fit .*; they fit no other backbone$"):
        build_backbone("resnet18", tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("value", "is_path"),
    [("net.pth.tar", True), ("pretrained/net", True), ("imagenet", False), ("hf:owner/net.pth", False)],
)
def test_paths_of_weights_are_made_absolute(value, is_path, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"base: sta_mars\nmodel: {{weights: '{value}'}}\n")
    loaded = load_recipe(tmp_path / "mine.yaml").model["weights"]
    assert loaded == (str(tmp_path / value) if is_path else value)
