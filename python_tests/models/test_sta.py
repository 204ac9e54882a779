import pytest
import torch
from torch import nn

from vreid_ext import ops
from vreid_ext.models import STA, TrainingOutput


class Tiny(nn.Module):
    """A stand-in for a backbone: 32 x 16 images to 6 x 8 x 4 maps."""

    out_channels = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).relu()


def model(**options) -> STA:
    torch.manual_seed(0)
    return STA(5, backbone=Tiny(), **{"feature_dim": 16, **options})


def clips(batch: int = 4, frames: int = 3) -> torch.Tensor:
    return torch.randn(batch, frames, 3, 32, 16, generator=torch.Generator().manual_seed(1))


ROWS = {  # of Table 1
    "baseline": {"pooling": "frame"},
    "avg": {"pooling": "avg"},
    "sta": {"fusion": False, "regularizer": False},
    "fusion": {"regularizer": False},
    "reg": {},
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("neck", ["fc", "bn"])
def test_rows_of_table_1(row, neck):
    net = model(**ROWS[row], neck=neck, feature_dim=16 if neck == "fc" else None)
    samples = 12 if row == "baseline" else 4
    output = net(clips())
    assert isinstance(output, TrainingOutput)
    assert output.logits.shape == (samples, 5)
    assert output.feature.shape == (samples, net.feature_dim)
    assert set(output.extras) == ({"inter_frame"} if row == "reg" else set())
    (output.logits.square().sum() + output.feature.sum() + sum(output.extras.values())).backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
    feature = net.eval()(clips())
    assert feature.shape == (4, net.feature_dim)
    if neck == "bn":
        assert net.feature_dim == (12 if row in ("fusion", "reg") else 6)


def test_pooled_vector_of_each_row():
    x = clips()
    for row, wanted in {
        "avg": lambda maps: maps.mean((1, 3, 4)),
        "sta": lambda maps: ops.sta_pool(maps, 4).pooled[:, 6:],
        "fusion": lambda maps: ops.sta_pool(maps, 4).pooled,
    }.items():
        net = model(**ROWS[row], neck="bn", feature_dim=None).eval()
        torch.testing.assert_close(net(x), net.bn(wanted(net.maps(x))))


def test_frame_baseline_averages_the_frames_features():
    net = model(pooling="frame").eval()
    x = clips()
    frames = net(x.flatten(0, 1)[:, None])  # every frame as a clip of its own
    torch.testing.assert_close(net(x), frames.unflatten(0, (4, 3)).mean(1))


def test_consensus_is_the_frame_baseline_with_other_weights_in_evaluation():
    x = clips()
    options = {"neck": "bn", "feature_dim": None}
    frame, consensus = model(pooling="frame", **options), model(pooling="consensus", **options)
    torch.testing.assert_close(consensus(x), frame(x))
    frame.eval(), consensus.eval()
    pooled, scores = consensus.attend(x)
    torch.testing.assert_close(consensus(x), consensus.bn(pooled))
    assert scores.shape == (4, 3, 4)
    assert not torch.isclose(consensus(x), frame(x)).all()
    flat = model(pooling="consensus", sharpness=0.0, **options)
    flat.load_state_dict(frame.state_dict())
    torch.testing.assert_close(flat.eval()(x), frame(x))


def test_bn_neck_trains_the_triplet_before_it_and_tests_after_it():
    net = model(neck="bn", feature_dim=None)
    output = net(clips())
    torch.testing.assert_close(output.feature, ops.sta_pool(net.maps(clips())).pooled)
    assert net.classifier.bias is None
    assert not net.bn.bias.requires_grad


@pytest.mark.parametrize("pooling", ["frame", "avg", "sta", "consensus"])
def test_padding_frames_cannot_be_seen(pooling):
    net = model(pooling=pooling).eval()
    x = clips(2, 4)
    x[1, 2:] = torch.nan
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    feature = net(x, valid)
    torch.testing.assert_close(feature[:1], net(x[:1]))
    torch.testing.assert_close(feature[1:], net(x[1:, :2]))


def test_any_number_of_frames_with_one_model():  # Table 2
    net = model().eval()
    assert {net(clips(1, frames)).shape for frames in (1, 2, 7)} == {(1, 16)}


def test_attend_is_the_models_attention_and_leaves_the_modes():
    net = model().train()
    net.bn.eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    pool = net.attend(clips())
    assert net.training
    assert not net.bn.training
    assert not pool.attention.requires_grad
    torch.testing.assert_close(pool.attention.sum((2, 3)), torch.ones(4, 3))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_compiles_in_one_graph():
    net = model().eval()
    x, valid = clips(), torch.ones(4, 3, dtype=torch.bool)
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), net(x))
        torch.testing.assert_close(compiled(x, valid), net(x, valid))


def test_autocast_bfloat16():
    net, x = model(), clips()
    with torch.autocast("cpu", torch.bfloat16):
        output = net(x)
    assert output.extras["inter_frame"].dtype == torch.float32
    (output.logits.float().sum() + output.extras["inter_frame"]).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    net.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        half = net(x)
    torch.testing.assert_close(half.float(), net(x).detach(), rtol=0.05, atol=0.05)


def test_learns_to_tell_two_people_apart():
    net = model(neck="bn", feature_dim=None)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    x, labels = clips(8, 2), torch.arange(8) % 2
    x[labels == 1, :, 0] += 1
    losses = []
    for _ in range(20):
        output = net(x)
        loss = nn.functional.cross_entropy(output.logits, labels) + output.extras["inter_frame"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"pooling": "max"}, "pooling"),
        ({"neck": "none"}, "neck"),
        ({"neck": "bn", "feature_dim": 8}, "feature_dim"),
        ({"feature_dim": 0}, "feature_dim"),
        ({"blocks": 0}, "blocks"),
        ({"backbone": nn.Identity()}, "backbone"),
        ({"backbone": "vgg16"}, "name"),
    ],
)
def test_bad_options(options, name):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        STA(5, **options)


def test_bad_calls():
    net = model()
    with pytest.raises(ValueError, match=r"^clips: expected .*got .*\(4, 3, 32, 16\)"):
        net(clips()[:, :, 0])
    with pytest.raises(ValueError, match=r"^valid: expected"):
        net(clips(), torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"^num_classes: expected .*, got 0"):
        STA(0)
    with pytest.raises(ValueError, match=r"^valid: expected .*, got a mask in training"):
        model(pooling="frame")(clips(), torch.ones(4, 3, dtype=torch.bool))
