import pytest
import torch

from vreid_ext import ops
from vreid_ext.losses import PartTripletLoss


def batch():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 3, 7, generator=generator, dtype=torch.float64)
    scores = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    return features, scores, torch.tensor([0, 0, 1, 1, 1, 2])


def test_equals_a_loop_over_anchors():
    features, scores, targets = batch()
    distance = ops.part_distance(features, scores, features, scores)
    expected = []
    for i in range(6):
        same = targets == targets[i]
        others = same.clone()
        others[i] = False
        if others.any():
            expected.append((0.8 + distance[i][others].max() - distance[i][~same].min()).clamp(min=0))
    torch.testing.assert_close(PartTripletLoss(0.8)(features, scores, targets), torch.stack(expected).mean())


@pytest.mark.parametrize("targets", [[0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]])
def test_without_a_triplet_the_loss_and_its_gradient_are_zero(targets):
    features, scores, _ = batch()
    features.requires_grad_()
    loss = PartTripletLoss()(features, scores, torch.tensor(targets))
    loss.backward()
    assert loss == 0
    assert features.grad.eq(0).all()


def test_bad_input_is_named():
    features, scores, targets = batch()
    with pytest.raises(ValueError, match="margin: expected a finite number from 0 on, got -1"):
        PartTripletLoss(-1)
    with pytest.raises(ValueError, match=r"targets: expected shape"):
        PartTripletLoss()(features, scores, targets[:5])
    with pytest.raises(ValueError, match="features: expected"):
        PartTripletLoss()(features, scores[:, :2], targets)
