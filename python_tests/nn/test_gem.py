import pytest
import torch
from torch.autograd import gradcheck

from vreid_ext.models import DRSTA, STA, STAL
from vreid_ext.nn import GeMPooling

SMALL = {"backbone": "osnet_x0_25"}


def test_a_generalized_mean():
    x = torch.rand(2, 3, 4, 5, 6, dtype=torch.float64) + 0.1
    expected = (x**2.5).mean((3, 4)) ** (1 / 2.5)
    torch.testing.assert_close(GeMPooling(2.5)(x), expected)
    torch.testing.assert_close(GeMPooling(1.0)(x), x.mean((3, 4)))
    torch.testing.assert_close(GeMPooling(300.0)(x), x.amax((3, 4)), rtol=0.02, atol=0)


def test_gradients_of_the_maps_and_of_the_exponent():
    x = (torch.rand(2, 3, 2, 2, dtype=torch.float64) + 0.1).requires_grad_()
    layer = GeMPooling().double()
    assert gradcheck(lambda x, p: layer(x), (x, layer.p))
    assert layer(-x).isfinite().all()
    assert not list(GeMPooling(learn=False).parameters())


def test_half_precision_keeps_its_dtype():
    x = torch.rand(2, 3, 4, 4)
    low = GeMPooling()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), GeMPooling()(x), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("model", "options"),
    [(STA, {"pooling": "avg"}), (STA, {"pooling": "frame"}), (DRSTA, {"spatial": False}),
     (STAL, {"branches": "global"})],
)  # fmt: skip
def test_models_learn_the_exponent(model, options):
    pytest.importorskip("torchvision")
    network = model(3, cells="gem", **options, **SMALL)
    output = network(torch.rand(4, 2, 3, 64, 32))
    output.feature.square().sum().backward()
    assert network.cells.p.grad.abs() > 0


def test_bad_values():
    with pytest.raises(ValueError, match=r"^p: expected a finite number >= 1, got 0"):
        GeMPooling(0)
    with pytest.raises(ValueError, match=r"^x: expected floating-point .*C,H,W.*, got .* \(2, 3\)"):
        GeMPooling()(torch.rand(2, 3))
    with pytest.raises(ValueError, match=r"^cells: expected one of .*'gem'"):
        STA(3, cells="max", pooling="avg", **SMALL)
    with pytest.raises(ValueError, match=r"^cells: expected 'mean' with pooling 'sta', got 'gem'"):
        STA(3, cells="gem", **SMALL)
    with pytest.raises(ValueError, match=r"^cells: expected 'mean' with spatial attention, got 'gem'"):
        DRSTA(3, cells="gem", **SMALL)
