"""The ASTA model: its streams, their attention and what they hand on."""

import pytest
import torch
from torch import nn

from vreid_ext.models import ASTA, TrainingOutput, build_model
from vreid_ext.nn import SpatioTemporalAttention, spatio_temporal_pool

SIZE = (32, 16)


class Tiny(nn.Sequential):
    """A backbone of stride 8."""

    out_channels = 12

    def __init__(self):
        super().__init__(nn.Conv2d(3, 12, 8, stride=8), nn.ReLU())


def make(**options):
    torch.manual_seed(0)
    return ASTA(5, backbone=Tiny(), input_size=SIZE, **options)


def clips(b=4, t=3):
    return torch.randn(b, t, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("streams", "asta", "width", "groups"),
    [
        (["reid"], False, 12, {}),
        (["reid", "relevant", "irrelevant"], True, 36, {"relevant": 41, "irrelevant": 25}),
        (["reid", "relevant", "irrelevant"], False, 12, {"relevant": 41, "irrelevant": 25}),
        (["relevant"], True, 12, {"relevant": 41}),
        (["irrelevant", "reid"], True, 24, {"irrelevant": 25}),
    ],
)
def test_streams_and_what_they_give(streams, asta, width, groups):
    model = make(streams=streams, asta=asta)
    output = model(clips())
    assert isinstance(output, TrainingOutput)
    assert output.feature.shape == (4, width) == (4, model.feature_dim)
    assert output.logits.shape == (4, 5)
    assert {name: logits.shape for name, logits in output.attributes.items()} == {
        name: (4, classes) for name, classes in groups.items()
    }
    assert {name: sum(sizes.values()) for name, sizes in model.attribute_sizes.items()} == groups
    model.eval()
    assert model(clips()).shape == (4, width)
    feature, logits = model.feature_and_attributes(clips())
    assert torch.equal(feature, model(clips()))
    assert logits.shape == (4, sum(groups.values()))


def test_resnet50_gives_6144_numbers_and_dukev_has_its_own_classes():
    model = build_model("asta", 3, attributes="dukev", input_size=[64, 32])
    assert model.feature_dim == 6144
    assert model.attribute_streams["relevant"].classifier.out_features == 33
    assert model.attribute_streams["relevant"].attention.temporal.in_channels == 4 * 2


@pytest.mark.parametrize("fixed_maps", [False, True])
@pytest.mark.parametrize("composition", ["original", "authors"])
def test_the_feature_is_the_maps_and_the_maps_under_attention(composition, fixed_maps):
    model = make(composition=composition, fixed_maps=fixed_maps, start="kaiming").eval()
    maps = model.backbone(clips().flatten(0, 1)).unflatten(0, (4, 3))
    attention = model.attend(clips())
    assert set(attention) == {"relevant", "irrelevant"} | ({"reid"} if composition == "authors" else set())
    own = attention.get("reid", torch.ones(4, 3, 4, 2))
    parts, logits = [(maps * own[:, :, None]).mean((1, 3, 4))], []
    for stream in ("relevant", "irrelevant"):
        parts.append((maps * (own * attention[stream])[:, :, None]).mean((1, 3, 4)))
        seen = (maps * attention[stream][:, :, None]).mean((1, 3, 4))  # attributes never see "reid"'s
        logits.append(model.attribute_streams[stream].classifier(seen.relu()))
    wanted = model.bn(torch.cat(parts, 1))
    torch.testing.assert_close(model(clips()), wanted)
    torch.testing.assert_close(model.feature_and_attributes(clips())[1], torch.cat(logits, 1))


@pytest.mark.parametrize("fixed_maps", [False, True])
def test_fixed_maps_keep_the_attribute_loss_from_the_backbone(fixed_maps):
    model = make(composition="authors", fixed_maps=fixed_maps)
    output = model(clips())
    for logits in output.attributes.values():
        gradients = torch.autograd.grad(
            logits.square().sum(), list(model.backbone.parameters()), retain_graph=True, allow_unused=True
        )
        assert all(gradient is None for gradient in gradients) == fixed_maps
    gradients = torch.autograd.grad(output.feature.square().sum(), list(model.backbone.parameters()))
    assert all(gradient.any() for gradient in gradients)


def test_kaiming_starts_spread_and_torch_near_a_half():
    torch.manual_seed(0)
    maps = torch.randn(4, 4, 512, 16, 8).relu()  # of a ResNet's last stage, fewer channels
    spread = {}
    for start in ("torch", "kaiming"):
        attention = SpatioTemporalAttention(512, (16, 8), width=512, start=start)(maps)
        assert abs(attention.mean() - 0.5) < 0.1
        spread[start] = attention.std().item()
    assert spread["torch"] < 0.1
    assert 0.15 < spread["kaiming"] < 0.35
    with pytest.raises(ValueError, match=r"^start: expected"):
        make(start="xavier")
    with pytest.raises(ValueError, match=r"^width: expected"):
        make(width=0)


def test_triplet_before_and_test_after_the_neck():
    model = make(streams=["reid"], asta=False)
    with torch.no_grad():
        model.bn.weight.fill_(3.0)
    output = model(clips())
    maps = model.backbone(clips().flatten(0, 1)).unflatten(0, (4, 3))
    torch.testing.assert_close(output.feature, maps.mean((1, 3, 4)))
    assert not model.bn.bias.requires_grad
    assert model.classifier.bias is None


def test_every_parameter_learns():
    model = make(composition="authors")
    output = model(clips())
    loss = output.logits.square().sum() + sum(logits.square().sum() for logits in output.attributes.values())
    loss.backward()
    still = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert not still


def test_detached_attention_does_not_pull_the_backbone():
    maps = torch.randn(2, 3, 12, 4, 2, requires_grad=True)
    for detach in (True, False):
        attention = SpatioTemporalAttention(12, (4, 2), detach=detach)(maps)
        assert attention.requires_grad
        gradient = torch.autograd.grad(attention.sum(), maps, allow_unused=True)[0]
        assert (gradient is None) == detach


def test_padding_frames_change_nothing():
    model = make().eval()
    padded = clips(2, 4)
    padded[:, 3] = 1e3
    valid = torch.tensor([[True, True, True, False]] * 2)
    # The fourth frame is as if it were not there: the convolution over time pads with zeros.
    torch.testing.assert_close(model(padded, valid), model(padded[:, :3]))
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    assert spatio_temporal_pool(torch.ones(2, 4, 3, 2, 2), valid=nothing).abs().sum() == 0


def test_any_number_of_frames():
    model = make().eval()
    for frames in (1, 2, 9):
        assert model(clips(2, frames)).shape == (2, 36)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streams": []}, "streams: expected"),
        ({"streams": ["reid", "pose"]}, "streams: expected"),
        ({"streams": ["reid", "reid"]}, "streams: expected"),
        ({"streams": ["relevant"], "asta": False}, "streams: expected 'reid' among them.*got "),
        ({"composition": "both"}, "composition: expected .* got 'both'"),
        ({"input_size": [32]}, "input_size: expected"),
        ({"attributes": "market"}, "dataset: expected .*got 'market'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ASTA(5, **{"backbone": Tiny(), "input_size": SIZE, **options})


def test_bad_calls():
    model = make()
    with pytest.raises(ValueError, match=r"clips: expected .*got .*\(2, 3\)"):
        model(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"maps: expected 4 x 2 cells, .*, got 5 x 2"):
        model(torch.zeros(2, 1, 3, 40, 16))
    with pytest.raises(ValueError, match="valid: expected"):
        model(clips(), torch.ones(4, 2).bool())
    with pytest.raises(ValueError, match=r"num_classes: expected .*, got 0"):
        ASTA(0, backbone=Tiny())
