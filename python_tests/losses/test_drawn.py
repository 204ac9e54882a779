"""Triplets drawn at random."""

import pytest
import torch

from vreid_ext.losses import DrawnTripletLoss, PartTripletLoss
from vreid_ext.losses.drawn import draw_triplets
from vreid_ext.ops import part_distance

TARGETS = torch.tensor([0, 0, 1, 1, 1, 2])


def test_every_positive_and_negative_is_as_likely():
    torch.manual_seed(0)
    counts = torch.zeros(2, 6, 6)
    for _ in range(3000):
        drawn = draw_triplets(TARGETS)
        for n, index in enumerate(drawn[:2]):
            counts[n, torch.arange(6), index] += 1
    same = TARGETS[:, None] == TARGETS
    masks = (same & ~torch.eye(6, dtype=torch.bool), ~same)
    assert drawn.anchors.tolist() == [True] * 5 + [False]  # the last has no positive
    for share, mask in zip(counts / 3000, masks, strict=True):
        wanted = mask / mask.sum(1, keepdim=True)
        torch.testing.assert_close(share[:5], wanted[:5], atol=0.04, rtol=0)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])
def test_the_ends_of_the_range_are_inside(draw):
    drawn = draw_triplets(TARGETS, torch.full((6, 2), draw))
    same = TARGETS[:, None] == TARGETS
    rows = torch.arange(6)[drawn.anchors]
    assert same[rows, drawn.positive[rows]].all()
    assert not same[rows, drawn.negative[rows]].any()
    assert (drawn.positive[rows] != rows).all()


@pytest.mark.parametrize("metric", ["euclidean", "squared", "cosine"])
def test_the_loss_is_the_mean_over_its_triplets(metric):
    torch.manual_seed(1)
    x, draws = torch.randn(6, 4, dtype=torch.float64), torch.rand(6, 2)
    positive, negative, anchors = draw_triplets(TARGETS, draws)
    distance = {
        "euclidean": lambda a, b: (a - b).square().sum().sqrt(),
        "squared": lambda a, b: (a - b).square().sum(),
        "cosine": lambda a, b: 1 - a @ b / (a.norm() * b.norm()),
    }[metric]
    terms = [
        max(0, 0.7 + distance(x[n], x[positive[n]]) - distance(x[n], x[negative[n]]))
        for n in range(6)
        if anchors[n]
    ]
    loss = DrawnTripletLoss(0.7, metric=metric)(x, TARGETS, draws)
    assert loss.item() == pytest.approx(float(sum(terms) / len(terms)))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: DrawnTripletLoss(3, metric=metric)(v, TARGETS, draws), x)


def test_equal_samples_have_a_gradient_of_zero():
    x = torch.ones(4, 3, requires_grad=True)
    DrawnTripletLoss(1)(x, torch.tensor([0, 0, 1, 1])).backward()
    assert (x.grad == 0).all()


def test_parts_take_the_same_triplets():
    torch.manual_seed(2)
    features, scores, draws = torch.randn(6, 3, 4), torch.rand(6, 3), torch.rand(6, 2)
    positive, negative, anchors = draw_triplets(TARGETS, draws)
    psi = part_distance(features, scores, features, scores)
    terms = [torch.relu(0.8 + psi[n, positive[n]] - psi[n, negative[n]]) for n in range(6) if anchors[n]]
    loss = PartTripletLoss(0.8, mining="drawn")(features, scores, TARGETS, draws)
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_without_a_triplet_the_loss_is_zero():
    x = torch.randn(3, 2, requires_grad=True)
    for targets in ([0, 0, 0], [0, 1, 2]):
        loss = DrawnTripletLoss()(x, torch.tensor(targets))
        loss.backward()
        assert loss == 0
        assert (x.grad == 0).all()


def test_bad_options_name_themselves():
    with pytest.raises(ValueError, match=r"^margin: expected"):
        DrawnTripletLoss(-1)
    with pytest.raises(ValueError, match=r"^mining: expected one of .*, got 'soft'"):
        PartTripletLoss(mining="soft")
