import pytest
import torch
from torch import nn

from vreid_ext.models import DRSTA, build_model
from vreid_ext.models.drsta import second_order


class Trunk(nn.Module):
    out_channels = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()


ROWS = {
    "Baseline": {"spatial": False, "temporal": "mean"},
    "SpaAtn": {"diversity": "none", "temporal": "mean"},
    "SpaAtn+Q'": {"diversity": "text", "temporal": "mean"},
    "SpaAtn+Q": {"temporal": "mean"},
    "SpaAtn+Q+MaxPool": {"temporal": "max"},
    "SpaAtn+Q+TemAtn": {},
}


def model(**options) -> DRSTA:
    torch.manual_seed(0)
    return DRSTA(4, **{"backbone": Trunk(), "hidden": 8, "regions": 3, **options})


CLIPS = torch.rand(2, 3, 3, 16, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_table_1_train_and_embed(row):
    network = model(**ROWS[row])
    output = network(CLIPS)
    assert (output.logits.shape, output.feature.shape) == ((2, 4), (2, 128))
    torch.testing.assert_close(output.feature.norm(dim=1), torch.ones(2))
    assert set(output.extras) == ({"diversity"} if "Q" in row else set())
    loss = output.feature[:, 0].sum() + output.logits.square().sum() + sum(output.extras.values())
    loss.backward()
    for name, value in network.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name
    assert network.eval()(CLIPS).shape == (2, network.feature_dim)


@pytest.mark.parametrize("regions", [1, 2, 4, 6, 8])
def test_columns_of_table_2(regions):
    network = model(regions=regions)
    output = network(CLIPS)
    assert (output.extras["diversity"] == 0) == (regions == 1)
    assert network.fc.in_features == 12 * regions


def test_temporal_attention_starts_as_the_mean():
    attention, mean = model(temporal="attention").eval(), model(temporal="mean").eval()
    torch.testing.assert_close(attention(CLIPS), mean(CLIPS))
    with torch.no_grad():
        attention.temporal.normal_()
    assert (attention(CLIPS) - mean(CLIPS)).abs().max() > 1e-4


@pytest.mark.parametrize("temporal", ["mean", "max", "attention"])
@pytest.mark.parametrize("spatial", [True, False])
def test_padding_frames_never_reach_the_feature(temporal, spatial):
    network = model(temporal=temporal, spatial=spatial).eval()
    if network.temporal is not None:
        nn.init.normal_(network.temporal)
    padded = CLIPS.clone()
    padded[:, 2] = 7
    valid = torch.tensor([[True, True, False]]).expand(2, -1)
    torch.testing.assert_close(network(padded, valid), network(CLIPS[:, :2]))


def test_one_frame_is_a_clip():
    assert model().eval()(CLIPS[:, :1]).shape == (2, 128)


def test_second_order_is_the_average_outer_product_applied():
    parts = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    got = second_order(parts)
    x = parts[1, :, 2]
    average = x.T @ x / 4
    torch.testing.assert_close(got[1, :, 2], x @ average / average.trace())
    same = parts[:, :1].expand(-1, 4, -1, -1)
    torch.testing.assert_close(second_order(same), same.contiguous())
    assert second_order(torch.zeros(1, 2, 1, 3)).abs().sum() == 0


def test_receptive_fields_for_pictures():
    network = model().train()
    fields = network.attend(CLIPS)
    assert (fields.weights.shape, fields.overlap.shape) == ((2, 3, 3, 4, 2), (2, 3))
    torch.testing.assert_close(fields.weights.sum((3, 4)), torch.ones(2, 3, 3))
    assert network.training
    assert model(spatial=False).attend(CLIPS) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity": "cosine"}, "diversity: expected .*got 'cosine'"),
        ({"temporal": "sum"}, "temporal: expected .*got 'sum'"),
        ({"enhance": "third_order"}, "enhance: expected .*got 'third_order'"),
        ({"regions": 0}, "regions: expected .*got 0"),
        ({"feature_dim": 0}, "feature_dim: expected .*got 0"),
        ({"neck": "fc"}, "neck: expected .*got 'fc'"),
        ({"backbone": nn.Identity()}, "backbone: expected .*got Identity"),
        ({"poling": "max"}, "poling: expected an option of model 'drsta'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_model("drsta", 4, **{"backbone": Trunk(), **options})


def test_the_bn_neck_separates_features_of_similar_direction():
    """The linear layer adds the same vector to all features, so they are nearly parallel."""
    cosines = {}
    for neck in ("none", "bn"):
        network = model(spatial=False, temporal="mean", neck=neck)
        nn.init.constant_(network.fc.bias, 10.0)
        feature = network(torch.rand(8, 3, 3, 16, 8, generator=torch.Generator().manual_seed(2))).feature
        torch.testing.assert_close(feature.norm(dim=1), torch.ones(8))
        cosines[neck] = (feature @ feature.T).triu(1).sum() / 28
    assert cosines["none"] > 0.99
    assert cosines["bn"] < 0.1


def test_the_released_form_embeds_and_normalises_each_region_of_each_frame():
    network = model(form="released", enhance="none", temporal="mean", feature_dim=5)
    output = network(CLIPS)
    maps = network.backbone(CLIPS.flatten(0, 1)).unflatten(0, (2, 3))
    pool = network.spatial(maps)
    parts = nn.functional.normalize(pool.features @ network.fc.weight.T + network.fc.bias, dim=3)
    wanted = nn.functional.normalize(parts.mean(1).flatten(1))
    assert output.feature.shape == (2, 15) == (2, network.feature_dim)
    torch.testing.assert_close(output.feature, wanted)
    torch.testing.assert_close(output.extras["diversity"], (pool.overlap.sum() + 1e-5).sqrt())
    assert network.spatial.response[0].out_channels == 8
    assert model(form="released", enhance="none", hidden=None).spatial.response[0].out_channels == 64
    assert model(form="released", enhance="none").temporal.shape == (3, 128)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"form": "released"}, r"^enhance: expected 'none'"),
        ({"form": "released", "enhance": "none", "spatial": False}, r"^spatial: expected true"),
        ({"form": "released", "enhance": "none", "neck": "bn"}, r"^neck: expected 'none'"),
        ({"form": "printed"}, r"^form: "),
    ],
)
def test_the_released_form_has_no_other_switches(options, says):
    with pytest.raises(ValueError, match=says):
        model(**options)
