import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext import ops
from vreid_ext.losses import TripletLoss


def by_the_book(x, targets, margin):
    """Eq. 9, one anchor at a time."""
    losses = []
    for a in range(len(x)):
        positive = [p for p in range(len(x)) if p != a and targets[p] == targets[a]]
        negative = [n for n in range(len(x)) if targets[n] != targets[a]]
        if positive and negative:
            far = max(math.dist(x[a], x[p]) for p in positive)
            near = min(math.dist(x[a], x[n]) for n in negative)
            gap = far - near
            losses.append(math.log1p(math.exp(gap)) if margin == "soft" else max(0, margin + gap))
    return sum(losses) / max(len(losses), 1)


@settings(max_examples=60)
@given(
    targets=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    margin=st.sampled_from([0, 0.3, 2.0, "soft"]),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_definition(targets, margin, seed):
    x = torch.randn(len(targets), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    got = TripletLoss(margin)(x, torch.tensor(targets))
    assert got.item() == pytest.approx(by_the_book(x.tolist(), targets, margin), abs=1e-12)


@pytest.mark.parametrize("margin", [5.0, "soft"])
def test_gradient_is_that_of_finite_differences(margin):
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda x: TripletLoss(margin)(x, targets), x)


def test_equal_samples_have_gradient_zero():
    x = torch.ones(4, 3, requires_grad=True)
    loss = TripletLoss(0.3)(x, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(0.3)
    assert (x.grad == 0).all()


def test_anchors_without_a_pair_are_left_out():
    x = torch.tensor([[0.0], [1.0], [5.0]], requires_grad=True)
    # 2 has no positive; 0: 1 - 5 + 4.5, 1: 1 - 4 + 4.5
    assert TripletLoss(4.5)(x, torch.tensor([0, 0, 1])).item() == pytest.approx((0.5 + 1.5) / 2)
    for lonely in ([0, 0, 0], [0, 1, 2]):
        (grad,) = torch.autograd.grad(TripletLoss()(x, torch.tensor(lonely)), x)
        assert (grad == 0).all()


def test_small_distances_far_from_the_origin_keep_their_precision():
    x = torch.tensor([[1000.0], [1000.0625], [1000.125], [1000.25]])
    # hand-computed with margin 0: positives .0625 .0625 .125 .125, negatives .125 .0625 .0625 .1875
    assert TripletLoss(0.0)(x, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(0.0625 / 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compute_in_float32(dtype):
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets = torch.arange(8) // 2
    wanted = TripletLoss()(x.float(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        got = TripletLoss()(x, targets)
    assert got.dtype == torch.float32
    assert torch.equal(got, wanted)


def test_nan_is_not_hidden():
    x = torch.randn(4, 2)
    x[1] = torch.nan
    with pytest.raises(ValueError, match="in row 1"):
        TripletLoss()(x, torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize("metric", ["squared", "cosine"])
def test_other_metrics_and_a_reference_set(metric):
    generator = torch.Generator().manual_seed(0)
    x, ref = (torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in (6, 9))
    targets, ref_targets = torch.arange(6) // 2, torch.arange(9) // 3
    hard = ops.batch_hard(x, targets, metric=metric, ref=ref, ref_labels=ref_targets)
    wanted = (0.3 + hard.positive_distance - hard.negative_distance).relu().mean()
    got = TripletLoss(0.3, metric=metric)(x, targets, ref, ref_targets)
    torch.testing.assert_close(got, wanted)


X, Y = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("inputs", "targets", "error", "name"),
    [
        ([1.0], Y, TypeError, "inputs"),
        (X.long(), Y, TypeError, "inputs"),
        (X[0], Y, ValueError, "inputs"),
        (X[:0], Y[:0], ValueError, "inputs"),
        (X, Y.tolist(), TypeError, "targets"),
        (X, Y.float(), TypeError, "targets"),
        (X, Y[:3], ValueError, "targets"),
    ],
)
def test_bad_input(inputs, targets, error, name):
    with pytest.raises(error, match=rf"^{name}: expected"):
        TripletLoss()(inputs, targets)


@pytest.mark.parametrize(
    ("margin", "error"), [(-1, ValueError), (math.inf, ValueError), ("hard", TypeError), (True, TypeError)]
)
def test_bad_margin(margin, error):
    with pytest.raises(error, match=r"^margin: expected"):
        TripletLoss(margin)
