import pytest
import torch

from vreid_ext import ops
from vreid_ext.losses import HellingerDiversity


def pool(regions: int = 3) -> ops.RegionPool:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, regions, 12, generator=generator).requires_grad_()
    return ops.region_pool(logits, torch.randn(2, 3, 5, 4, 3, generator=generator))


def test_is_the_mean_overlap_of_pool_and_of_weights():
    found = pool()
    torch.testing.assert_close(HellingerDiversity()(found), found.overlap.mean())
    torch.testing.assert_close(HellingerDiversity()(found.weights), found.overlap.mean())


def test_text_form_is_equation_10():
    weights = pool().weights
    expected = (weights @ weights.mT - torch.eye(3)).square().sum((2, 3)).mean()
    torch.testing.assert_close(HellingerDiversity("text")(pool()), expected)


def test_frames_left_out_do_not_count():
    found = pool()
    valid = torch.tensor([[1, 0, 1], [0, 0, 0]]).bool()
    torch.testing.assert_close(HellingerDiversity()(found, valid), found.overlap[0, [0, 2]].mean())
    assert HellingerDiversity()(found, valid & False) == 0


@pytest.mark.parametrize("form", ["hellinger", "text"])
def test_one_region_costs_nothing(form):
    logits = torch.randn(2, 3, 1, 12, requires_grad=True)
    value = HellingerDiversity(form)(ops.region_pool(logits, torch.randn(2, 3, 5, 4, 3)))
    value.backward()
    assert value == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_descent_takes_regions_apart():
    torch.manual_seed(0)
    logits = torch.nn.Parameter(0.1 * torch.randn(1, 1, 4, 32))
    x = torch.randn(1, 1, 2, 8, 4)
    optimizer = torch.optim.SGD([logits], lr=5.0)
    first = None
    for _ in range(300):
        value = HellingerDiversity()(ops.region_pool(logits, x))
        first = first or value.item()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert value.item() < 0.05 * first


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"form: expected .*, got 'cosine'"):
        HellingerDiversity("cosine")
    with pytest.raises(TypeError, match=r"valid: expected .*, got torch.float32"):
        HellingerDiversity()(pool(), torch.ones(2, 3))


def test_the_root_pulls_by_the_root_of_the_batch():
    """d sqrt(N m) = sqrt(N / (4 m)) dm with m the mean, as the docstring says."""
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    weights, gradients = logits.softmax(3), {}
    values = {how: HellingerDiversity(reduction=how)(weights) for how in ("mean", "root")}
    for how, value in values.items():
        (gradients[how],) = torch.autograd.grad(value, logits, retain_graph=True)
    factor = (12 / (4 * values["mean"])) ** 0.5
    torch.testing.assert_close(gradients["root"], gradients["mean"] * factor, rtol=1e-4, atol=1e-9)
    valid = torch.zeros(4, 3, dtype=torch.bool)
    valid[0, :2] = True
    alone = HellingerDiversity(reduction="root")(weights[:1, :2])
    torch.testing.assert_close(HellingerDiversity(reduction="root")(weights, valid), alone)
    with pytest.raises(ValueError, match=r"^reduction: expected one of .*, got 'sum'"):
        HellingerDiversity(reduction="sum")
