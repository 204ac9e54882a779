import math
import warnings

import pytest
import torch

from vreid_ext import ops
from vreid_ext.losses import AITLoss, ITLoss
from vreid_ext.metrics import DVDP


def cosine(a, b):
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def by_the_book(features, attributes, targets, margin=0.0, include_self=False, attribute_distance=cosine):
    """Eq. 2 and 3, one anchor at a time."""
    gaps = []
    for a, target in enumerate(targets):
        others = [j for j, other in enumerate(targets) if other == target and (j != a or include_self)]
        if others:
            key = [attribute_distance(attributes[a], attributes[j]) for j in others]
            far, near = others[key.index(max(key))], others[key.index(min(key))]
            gaps.append(
                max(0, margin + cosine(features[a], features[far]) - cosine(features[a], features[near]))
            )
    return sum(gaps) / max(len(gaps), 1)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(14, 6, dtype=torch.float64, generator=generator)
    attributes = torch.rand(14, 5, dtype=torch.float64, generator=generator)
    return features, attributes, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4])


@pytest.mark.filterwarnings("ignore:2 of 5 identities")
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_agrees_with_the_definition(batch, backend):
    features, attributes, targets = batch
    plain = features.tolist(), attributes.tolist(), targets.tolist()
    assert AITLoss(backend=backend)(*batch).item() == pytest.approx(by_the_book(*plain), abs=1e-12)
    assert by_the_book(*plain) > 0
    authors = AITLoss(attribute_metric="euclidean", include_self=True, backend=backend)(*batch).item()
    assert authors == pytest.approx(
        by_the_book(*plain, include_self=True, attribute_distance=math.dist), abs=1e-12
    )
    assert AITLoss(0.5, backend=backend)(*batch).item() == pytest.approx(by_the_book(*plain, 0.5), abs=1e-12)
    got = ITLoss(backend=backend)(features, targets).item()
    assert got == pytest.approx(by_the_book(plain[0], plain[0], plain[2]), abs=1e-12)


@pytest.mark.filterwarnings("ignore:2 of 5 identities")
def test_gradient_reaches_the_features_and_not_the_attributes(batch):
    features, attributes, targets = (each.clone() for each in batch)
    assert torch.autograd.gradcheck(lambda x: AITLoss(1.0)(x, attributes, targets), features.requires_grad_())
    attributes.requires_grad_()
    AITLoss()(features, attributes, targets).backward()
    assert features.grad.abs().sum() > 0
    assert attributes.grad is None


def test_dvdp_is_the_loss_that_mines_with_features_and_averages_over_batches(batch):
    features, _, targets = (each[:12] for each in batch)
    metric = DVDP()
    assert math.isnan(metric.compute())
    metric.update(features[:8], targets[:8])
    metric.update(features[8:], targets[8:])
    assert metric.compute() == pytest.approx(ITLoss()(features, targets).item(), abs=1e-12)
    total, count = ops.dvdp(features, targets)
    assert count == 12
    assert metric.compute() == pytest.approx(float(total) / 12, abs=1e-12)
    metric.reset()
    assert math.isnan(metric.compute())


def test_fewer_than_three_samples_warn_once():
    x, targets = torch.randn(5, 4), torch.tensor([0, 0, 1, 1, 1])
    loss = AITLoss()
    with pytest.warns(UserWarning, match=r"1 of 2 identities .* fewer than 3 samples.*K >= 3"):
        loss(x, x, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loss(x[:2], x[:2], targets[:2]) == 0
        enough = AITLoss()
        enough(x[2:], x[2:], targets[2:])


def test_without_a_pair_the_loss_is_zero_with_gradient_zero():
    x = torch.randn(3, 4, requires_grad=True)
    with pytest.warns(UserWarning, match="3 of 3 identities"):
        loss = AITLoss()(x, x.detach(), torch.arange(3))
    loss.backward()
    assert loss == 0
    assert (x.grad == 0).all()


X, Y = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.long(), X, Y), TypeError, "features: expected dtype"),
        ((X, X[:3], Y), ValueError, "targets: expected shape"),
        ((X, X, Y[:3]), ValueError, "targets: expected shape"),
        ((X, X * math.nan, Y), ValueError, "attributes: expected .*got NaN.* row 0"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        AITLoss()(*arguments)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"margin: expected .*, got 'soft'"):
        AITLoss("soft")
    with pytest.raises(ValueError, match=r"metric: expected .*, got 'l1'"):
        ITLoss(metric="l1")
