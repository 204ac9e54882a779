import pytest
import torch

from vreid_ext import nn


def test_paper_form_is_equations_1_to_3():
    torch.manual_seed(0)
    layer = nn.RegionAttention(5, regions=2, hidden=3)
    x = torch.randn(2, 3, 5, 4, 2)
    first, _, second = layer.response
    features, weights, overlap = layer(x)
    for k in range(2):
        hidden = first.weight[3 * k : 3 * k + 3, :, 0, 0], first.bias[3 * k : 3 * k + 3]
        f = x[1, 2].flatten(1)  # (D,L)
        e = second.weight[k, :, 0, 0] @ (hidden[0] @ f + hidden[1][:, None]).relu()
        s = e.softmax(0)
        torch.testing.assert_close(weights[1, 2, k], s)
        torch.testing.assert_close(features[1, 2, k], f @ s)
    rows = weights.sqrt()
    expected = (rows @ rows.mT - torch.eye(2)).square().sum((2, 3))
    torch.testing.assert_close(overlap, expected, rtol=1e-4, atol=1e-5)


def test_released_form_shares_its_first_map():
    layer = nn.RegionAttention(5, regions=3, hidden=64, form="released")
    assert [type(part).__name__ for part in layer.response] == [
        "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"
    ]  # fmt: skip
    assert layer(torch.randn(2, 3, 5, 4, 2)).features.shape == (2, 3, 3, 5)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_every_parameter_learns(form):
    layer = nn.RegionAttention(5, regions=3, hidden=4, form=form)
    pool = layer(torch.randn(2, 3, 5, 4, 2))
    (pool.features.square().sum() + pool.overlap.sum()).backward()
    # A shift of all cells of a region is taken out by the softmax again.
    idle = {"response.3.bias", "response.4.bias"}
    for name, value in layer.named_parameters():
        assert name in idle or value.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"regions": 0}, ValueError, "regions: expected .*got 0"),
        ({"hidden": 1.5}, TypeError, "hidden: expected .*got float"),
        ({"form": "mine"}, ValueError, "form: expected .*got 'mine'"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        nn.RegionAttention(8, **options)


def test_bad_maps_are_named():
    with pytest.raises(ValueError, match=r"x: expected .*got .*\(2, 8, 4, 2\)"):
        nn.RegionAttention(8)(torch.zeros(2, 8, 4, 2))
