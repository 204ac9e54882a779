import sys
from urllib.error import URLError

import pytest
import torch

from vreid_ext.models import build_backbone

torchvision = pytest.importorskip("torchvision")


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet18", 512), ("resnet50", 2048), ("mobilenet_v2", 1280)]
)
@pytest.mark.parametrize("last_stride", [1, 2])
def test_shape_of_the_maps(name, channels, last_stride):
    backbone = build_backbone(name, last_stride=last_stride).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 32))
    size = (4, 2) if last_stride == 1 else (2, 1)
    assert maps.shape == (1, channels, *size)
    assert backbone.out_channels == channels


def test_trunk_is_torchvisions():
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", last_stride=2).eval()
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        pooled = backbone(images).mean((2, 3))
        torch.testing.assert_close(network.fc(pooled), network(images))


def same(backbone, state) -> bool:
    return all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())


@pytest.fixture(scope="module")
def resnet():
    return torchvision.models.resnet18().state_dict()


def test_weights_by_name_from_safetensors(resnet, tmp_path):
    pytest.importorskip("safetensors.torch").save_file(resnet, tmp_path / "net.safetensors")
    assert same(build_backbone("resnet18", tmp_path / "net.safetensors"), resnet)


def test_weights_by_name_whatever_their_order_and_wrapping(resnet, tmp_path):
    shuffled = {f"module.{key}": resnet[key] for key in reversed(resnet)}
    torch.save({"state_dict": shuffled, "epoch": 3}, tmp_path / "net.pth")
    assert same(build_backbone("resnet18", str(tmp_path / "net.pth")), resnet)


def renamed(state, name):
    """In the same order, under names that `name` makes of a number and the last part."""
    kept = [(key, value) for key, value in state.items() if not key.endswith("num_batches_tracked")]
    return {name(i, key.rpartition(".")[2]): value for i, (key, value) in enumerate(kept)}


def test_weights_by_order_under_foreign_names_say_so(tmp_path):
    state = torchvision.models.mobilenet_v2().state_dict()
    torch.save(renamed(state, lambda i, last: f"block.{i}.{last}"), tmp_path / "net.pt")
    with pytest.warns(UserWarning, match=r"260 tensors are matched by order, from 'block.0.weight' as 'feat"):
        backbone = build_backbone("mobilenet_v2", tmp_path / "net.pt")
    assert same(backbone, state)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (lambda i, last: f"weight{i}", "weight0"),
        (lambda i, last: f"b.{i}." + {"weight": "bias", "bias": "weight"}.get(last, last), "b.0.bias"),
        (lambda i, last: f"b.{i}." + {"weight": "scale"}.get(last, last), "b.0.scale"),
    ],
)
def test_weights_by_order_are_refused_where_last_parts_differ(resnet, tmp_path, name, wrong):
    torch.save(renamed(resnet, name), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=f"expected 'conv1.weight', got '{wrong}'"):
        build_backbone("resnet18", tmp_path / "net.pt")


def test_weight_and_bias_of_a_norm_are_not_swapped(resnet, tmp_path):
    state = renamed(resnet, lambda i, last: f"b.{i}.{last}")
    names = list(state)
    names[1], names[2] = names[2], names[1]  # bn1: bias before weight, of one shape
    torch.save({name: state[name] for name in names}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"expected 'bn1.weight', got 'b.2.bias'"):
        build_backbone("resnet18", tmp_path / "net.pt")


@pytest.mark.parametrize("prefix", ["module.", "model.backbone.", "encoder_q."])
def test_weights_behind_any_prefix(resnet, tmp_path, prefix):
    torch.save({prefix + key: value for key, value in resnet.items()}, tmp_path / "net.pth")
    assert same(build_backbone("resnet18", tmp_path / "net.pth"), resnet)


def test_two_networks_in_a_file_and_one_that_is_not_whole(resnet, tmp_path):
    both = {prefix + key: value for prefix in ("q.", "k.") for key, value in resnet.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"both.pth: expected one network, got 2, under 'q.', 'k.'"):
        build_backbone("resnet18", tmp_path / "both.pth")
    torch.save({k: v for k, v in resnet.items() if not k.startswith("layer4.1")}, tmp_path / "part.pth")
    with pytest.raises(
        ValueError, match=r"expected 100 tensors by name, got 90; .* missing one is 'layer4.1.conv1"
    ):
        build_backbone("resnet18", tmp_path / "part.pth")


def test_weights_that_do_not_fit(resnet, tmp_path):
    torch.save({**resnet, "conv1.weight": torch.zeros(1)}, tmp_path / "shape.pth")
    with pytest.raises(
        ValueError, match=r"shape.pth: 'conv1.weight': expected shape \(64, 3, 7, 7\), got \(1,\)"
    ):
        build_backbone("resnet18", tmp_path / "shape.pth")
    torch.save({f"_{key}": resnet[key] for key in reversed(resnet)}, tmp_path / "order.pth")
    with pytest.raises(
        ValueError, match=r"order.pth fits neither by name nor by order: expected .*, got '_fc.bias' of shape"
    ):
        build_backbone("resnet18", tmp_path / "order.pth")
    torch.save(resnet, tmp_path / "small.pth")
    with pytest.raises(
        ValueError, match=r"expected at least 265 tensors, got 102; their names begin with 'conv1.weight', "
    ):
        build_backbone("resnet50", tmp_path / "small.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"expected a state dict in .*, got a list"):
        build_backbone("resnet18", tmp_path / "list.pth")


class Planted:
    """Unpickling it would leave a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_but_tensors_is_unpickled(tmp_path):
    torch.save({"a": Planted(tmp_path / "trace")}, tmp_path / "net.pth")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        build_backbone("resnet18", tmp_path / "net.pth")
    assert not (tmp_path / "trace").exists()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^weights: expected .*, got .*none.pth'"):
        build_backbone("resnet18", tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80 no weights")
    with pytest.raises(ValueError, match=rf"^weights: .*{name}' cannot be read: "):
        build_backbone("resnet18", tmp_path / name)


def test_imagenet_from_the_cache(resnet, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    file = tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(resnet, file)
    assert same(build_backbone("resnet18", "imagenet"), resnet)


def test_imagenet_offline_says_which_file_to_put_where(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", refused)
    file = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    with pytest.raises(FileNotFoundError, match=f"put https://.*resnet50-0676ba61.pth at {file}"):
        build_backbone("resnet50", "imagenet")


def test_without_torchvision_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"pip install 'vreid-ext\[train\]'"):
        build_backbone("resnet18")


def test_bad_options():
    with pytest.raises(ValueError, match=r"^name: expected .*, got 'resnet'"):
        build_backbone("resnet")
    with pytest.raises(ValueError, match=r"^last_stride: expected .*, got 3"):
        build_backbone("resnet18", last_stride=3)
