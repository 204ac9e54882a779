import pytest
import torch
from torch import nn

from vreid_ext.models import STAL, Backbone, build_backbone, build_model
from vreid_ext.models.backbones import split_backbone
from vreid_ext.nn import part_boxes
from vreid_ext.nn.parts import PART_NAMES

SMALL = {"backbone": "resnet18", "split": "layer2", "part_dim": 8, "roi_size": 4}


def model(**options):
    torch.manual_seed(0)
    return STAL(5, **{**SMALL, **options})


def clips(b=2, t=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(b, t, 3, 64, 32, generator=generator), torch.rand(b, t, 14, 3, generator=generator)


@pytest.mark.parametrize("branches", ["both", "global", "local"])
def test_training_terms_reach_every_parameter(branches):
    stal = model(branches=branches)
    frames, joints = clips(4)
    output = stal(frames, joints=joints, label=torch.tensor([0, 0, 1, 1]))
    assert output.logits.shape == (4, 5)
    assert set(output.extras) == (set() if branches == "global" else {"part_softmax", "part_triplet"})
    loss = sum(output.extras.values(), output.logits.square().sum() if branches != "local" else 0)
    loss.backward()
    lacking = [name for name, p in stal.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # In a ReLU network a channel may be off for a tiny batch; whole tensors without gradient may not.
    assert lacking == []


def test_evaluation_is_the_distance_of_the_paper():
    stal = model().eval()
    frames, joints = clips(3)
    with torch.no_grad():
        rows = stal(frames, joints=joints)
        distance = stal.distance(rows, rows)
        maps = stal.low(frames.flatten(0, 1))
        f = stal._part_features(maps.unflatten(0, (3, 3)), None, joints)
        a = stal.quality(frames)
        a = a / a.sum((1, 2), keepdim=True)
        g = stal.high(stal.attention(maps)).mean((2, 3)).unflatten(0, (3, 3)).mean(1)
    f_i = (a[..., None] * f).sum(1) / a.sum(1)[..., None]
    mean = a.mean(1) / a.mean(1).norm(dim=1, keepdim=True)
    psi = (mean[:, None] * mean[None] * (f_i[:, None] - f_i[None]).norm(dim=3)).sum(2)
    expected = psi + 0.3 * (g[:, None] - g[None]).norm(dim=2)
    torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-4)


def test_a_mobilenet_is_split_within_its_only_layer():
    """The parts together have the parameters of the whole backbone, by name, and compute the same maps."""
    backbone = build_backbone("mobilenet_v2").eval()
    low, part, high = split_backbone(backbone)
    names = [name for each in (low, high) for name in each.state_dict()]
    assert names == list(backbone.state_dict())
    images = clips()[0].flatten(0, 1)
    torch.testing.assert_close(high(low(images)), backbone(images), rtol=0, atol=0)
    assert low(images).shape[1:] == (low.out_channels, 4, 2) == (96, 4, 2)
    assert (part.out_channels, high.out_channels) == (1280, 1280)
    assert build_model("stal", 5, backbone="mobilenet_v2", part_dim=8).eval()(clips()[0]).shape[0] == 2


def test_clips_of_a_tracklet_add_up():
    """The mean of the rows of two clips, the second half empty, is the row of all frames up to a factor."""
    stal = model().eval()
    frames, joints = clips(1, 6)
    valid = torch.tensor([[True, True, True, False]])
    with torch.no_grad():
        whole = stal(frames[:, :5], joints=joints[:, :5])
        first = stal(frames[:, :2], joints=joints[:, :2])
        second = stal(frames[:, 2:], valid, joints[:, 2:])
        assert stal.distance((first + second) / 2, whole) < 1e-3
        for mine, theirs in zip(stal.unpack((first + second) / 2)[:2], stal.unpack(whole)[:2], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_switches_of_the_test():
    stal = model().eval()
    frames, joints = clips(3)
    distances = {}
    with torch.no_grad():
        for attention in ("both", "temporal", "spatial", "none"):
            for branches in ("both", "global", "local"):
                stal.test_attention, stal.test_branches = attention, branches
                rows = stal(frames, joints=joints)
                distances[attention, branches] = stal.distance(rows, rows)
        stal.test_attention = "none"
        plain = stal.unpack(stal(frames, joints=joints))
        f = stal._part_features(stal.low(frames.flatten(0, 1)).unflatten(0, (3, 3)), None, joints)
    torch.testing.assert_close(plain.features, f.mean(1))
    assert plain.scores.unique().numel() == 1
    for attention in ("both", "temporal", "spatial", "none"):
        both = distances[attention, "local"] + 0.3 * distances[attention, "global"]
        torch.testing.assert_close(distances[attention, "both"], both)
    torch.testing.assert_close(distances["none", "global"], distances["both", "global"])
    local = [distances[attention, "local"] for attention in ("both", "temporal", "spatial", "none")]
    assert all(not torch.equal(a, b) for n, a in enumerate(local) for b in local[:n])


def test_without_joints_the_standing_layout():
    stal = model().eval()
    frames, joints = clips()
    nothing = torch.zeros_like(joints)
    with torch.no_grad():
        torch.testing.assert_close(stal(frames), stal(frames, joints=nothing))
        assert not torch.equal(stal(frames), stal(frames, joints=joints))
    torch.testing.assert_close(stal.boxes(joints, frames.flatten(0, 1)), part_boxes(joints.flatten(0, 1)))


def test_part_networks_have_weights_of_their_own():
    stal = model()
    first, second = (network[0].layer3[0].conv1.weight for network in stal.part_networks[:2])
    assert torch.equal(first, second)  # both start from the backbone's
    assert first.data_ptr() != second.data_ptr()
    assert first.data_ptr() != stal.high.layer3[0].conv1.weight.data_ptr()


@pytest.mark.parametrize(
    ("backbone", "channels", "global_dim", "part"),
    [
        ("googlenet", 512, 1024, ["inception4c", "inception4d", "inception4e", "maxpool4"]),
        ("resnet18", 256, 512, ["layer4"]),
    ],
)
def test_default_splits_give_the_maps_of_table_1(backbone, channels, global_dim, part):
    stal = STAL(3, backbone=backbone, part_dim=4)
    with torch.no_grad():
        assert stal.eval().low(torch.zeros(1, 3, 224, 224)).shape == (1, channels, 14, 14)
        assert stal.high(torch.zeros(1, channels, 14, 14)).shape == (1, global_dim, 7, 7)
    assert [name for name, _ in stal.part_networks[0][0].named_children()] == part
    assert stal.part_networks[0][0](torch.zeros(1, channels, 8, 8)).shape[2:] == (4, 4)


def test_googlenet_takes_a_state_dict_of_torchvision(tmp_path):
    from torchvision import models

    network = models.googlenet(
        weights=None, aux_logits=False, init_weights=False, transform_input=True
    ).eval()
    torch.save(network.state_dict(), tmp_path / "googlenet.pth")
    trunk = build_backbone("googlenet", tmp_path / "googlenet.pth", 2).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.fc(trunk(images).mean((2, 3))), network(images))
    with pytest.raises(ValueError, match="last_stride: expected 2, got 1 for googlenet"):
        build_backbone("googlenet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": "all"}, "branches: expected one of both, global, local, got 'all'"),
        ({"test_attention": "tan"}, "test_attention: expected .*got 'tan'"),
        (
            {"branches": "global", "test_branches": "local"},
            "test_branches: expected 'both' or .*, got 'local'",
        ),
        ({"roi": "max"}, "roi: expected .*got 'max'"),
        ({"part_dim": 0}, "part_dim: expected .*got 0"),
        ({"fusion": -1}, "fusion: expected .*got -1"),
        ({"split": "layer9"}, "split: expected one of the backbone's layers .conv1, .*, got 'layer9'"),
        (
            {"split": None, "backbone": Backbone({"conv": nn.Conv2d(3, 5, 3)}, 5)},
            "backbone: expected one that can be split .a ResNet, .*, got 'Backbone'",
        ),
        ({"part_dims": 3}, "part_dims: expected an option of model 'stal' .*did you mean 'part_dim'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_model("stal", 5, **{**SMALL, **options})


def test_bad_calls_are_named():
    stal = model()
    frames, joints = clips()
    with pytest.raises(ValueError, match=r"clips: expected .*got .*\(3, 3, 64, 32\)"):
        stal(frames[0])
    with pytest.raises(ValueError, match=r"joints: expected shape \(B,T,14,3\) = .*, got \(2, 2, 14, 3\)"):
        stal(frames, joints=joints[:, :2])
    with pytest.raises(ValueError, match=r"label: expected .* to train the local branch, got None"):
        stal(frames)
    rows = stal.eval()(frames)
    with pytest.raises(ValueError, match=r"rows: expected shape \(n,573\), got \(2, 3\)"):
        stal.distance(rows, rows[:, :3])


def test_parts_alone_and_together():  # Fig. 7
    stal, frames = model(), clips(3)
    stal.eval()
    rows = stal(frames[0], joints=frames[1]).detach()
    told = stal.unpack(rows)
    for parts in (["torso"], ["left leg", "head"]):
        shown = model(test_branches="local", test_parts=parts).eval()
        numbers = sorted(PART_NAMES.index(part) for part in parts)
        a = told.scores[:, numbers] / told.scores[:, numbers].norm(dim=1, keepdim=True)
        f = told.features[:, numbers]
        psi = (a[:, None] * a * (f[:, None] - f).norm(dim=3)).sum(2)
        torch.testing.assert_close(shown.distance(rows, rows), psi, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"^test_parts: expected one or more of head, torso"):
        model(test_parts=["nose"])


def test_the_global_feature_may_have_a_size_of_its_own():  # Fig. 9
    stal = model(global_dim=24)
    frames, joints = clips(4)
    output = stal(frames, joints=joints, label=torch.tensor([0, 0, 1, 1]))
    assert output.feature.shape == (4, 24)
    stal.eval()
    whole = stal(frames, joints=joints).detach()
    halves = torch.stack([stal(frames[:, n:][:, :2], joints=joints[:, n:][:, :2]).detach() for n in (0, 1)])
    assert stal.unpack(whole).globals.shape == (4, 24)
    assert stal.unpack(halves.mean(0)).globals.shape == (4, 24)
    assert stal.distance(whole, whole).shape == (4, 4)


def test_drawn_triplets_reach_both_losses():
    stal = model(part_mining="drawn")
    frames, joints = clips(4)
    torch.manual_seed(5)
    first = stal(frames, joints=joints, label=torch.tensor([0, 0, 1, 1])).extras["part_triplet"]
    torch.manual_seed(6)
    second = stal(frames, joints=joints, label=torch.tensor([0, 0, 1, 1])).extras["part_triplet"]
    assert first != second
