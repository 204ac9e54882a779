"""Runs from weight files of other packages: the same features as the package that wrote them."""

import importlib

import pytest
import torch
import torchvision

from vreid_ext import engine
from vreid_ext.engine.imported import import_weights

CLIPS = (2, 3, 3, 64, 32)


def scattered(module):
    """Give the statistics and parameters of batch normalization values that matter."""
    for each in module.modules():
        if isinstance(each, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            each.running_mean.normal_(0, 0.1)
            each.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(each.bias, -0.1, 0.1)
    return module.eval()


@pytest.fixture(scope="module")
def osnet(tmp_path_factory):
    """torchreid's OSNet and its file."""
    pytest.importorskip("pyppbox_torchreid", reason="needs the extra [bench]")
    torchreid = importlib.import_module("pyppbox_torchreid.models.osnet")
    model = scattered(torchreid.osnet_x0_25(num_classes=7, pretrained=False))
    torch.nn.init.normal_(model.fc[0].bias)
    path = tmp_path_factory.mktemp("osnet") / "osnet.pth"
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, path)
    return model, path


def test_an_osnet_of_torchreid(osnet, tmp_path, vreid):
    model, path = osnet
    code, out, err = vreid("import", str(path), str(tmp_path / "run"), "--height", "64", "--width", "32")
    assert code == 0, err
    assert "backbone osnet_x0_25, embedding: Linear, BN and ReLU, 7 classes" in out
    opened, recipe, _ = engine.open_checkpoint(tmp_path / "run")
    assert (recipe.input.height, recipe.input.width, recipe.eval.sampling) == (64, 32, "dense")
    clips = torch.randn(CLIPS)
    with torch.no_grad():
        expected = model(clips.flatten(0, 1)).unflatten(0, CLIPS[:2]).mean(1)
        torch.testing.assert_close(opened(clips), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(opened.classifier.weight, model.classifier.weight)
    assert torch.equal(opened.classifier.bias, model.classifier.bias)


@pytest.mark.parametrize("gem", [False, True])
def test_a_resnet_of_fast_reid_with_bnneck(tmp_path, gem):
    network = scattered(torchvision.models.resnet18())
    for layer in (network.layer4[0].conv1, network.layer4[0].downsample[0]):
        layer.stride = (1, 1)
    neck = scattered(torch.nn.BatchNorm1d(512))
    state = {f"backbone.{key}": value for key, value in network.state_dict().items() if "fc." not in key}
    state |= {f"heads.bottleneck.0.{key}": value for key, value in neck.state_dict().items()}
    state |= {"heads.weight": torch.randn(5, 512), "pixel_mean": torch.zeros(1, 3, 1, 1)}
    if gem:
        state["heads.pool_layer.p"] = torch.tensor([2.5])
    torch.save({"model": state, "iteration": 3}, tmp_path / "model_final.pth")
    made = import_weights(tmp_path / "model_final.pth", tmp_path / "run", height=64, width=32)
    assert (made["embedding"], made["classes"]) == ("bn", 5)
    opened = engine.open_checkpoint(tmp_path / "run")[0]
    assert torch.equal(opened.classifier.weight, state["heads.weight"])
    clips = torch.randn(CLIPS)
    with torch.no_grad():
        maps = torch.nn.Sequential(*list(network.children())[:-2])(clips.flatten(0, 1))
        power = 2.5 if gem else 1
        pooled = maps.clamp(min=1e-6).pow(power).mean((2, 3)).pow(1 / power)
        expected = neck(pooled).unflatten(0, CLIPS[:2]).mean(1)
        torch.testing.assert_close(opened(clips), expected, rtol=1e-3, atol=1e-4)


def test_a_file_without_embedding_warns(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "net.pth")
    with pytest.warns(UserWarning, match=r"^weights: the file has no embedding layer"):
        assert import_weights(tmp_path / "net.pth", tmp_path / "run")["embedding"] == "none"


def test_a_file_of_no_backbone_and_a_run_that_exists(osnet, tmp_path):
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"^weights: expected a file with all tensors of a backbone, got .*"):
        import_weights(tmp_path / "net.pth", tmp_path / "run")
    import_weights(osnet[1], tmp_path / "run")
    with pytest.raises(ValueError, match=r"^folder: expected a new folder"):
        import_weights(osnet[1], tmp_path / "run")
