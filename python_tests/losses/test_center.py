import pytest
import torch

from vreid_ext.losses import CenterLoss


def test_the_loss_and_its_centers_follow_the_paper():
    torch.manual_seed(0)
    loss = CenterLoss(num_features=3, num_classes=4, alpha=0.5)
    loss.centers.normal_()
    before = loss.centers.double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, 0, 2, 2, 3])
    value = loss(x, labels)
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(
        value, sum((x[i] - before[y]).square().sum() for i, y in enumerate(labels)) / 10
    )
    torch.testing.assert_close(gradient, (x.detach() - before[labels]) / 5)
    for j in range(4):  # Eq. 4
        of_class = x.detach()[labels == j]
        step = (before[j] - of_class).sum(0) / (1 + len(of_class))
        torch.testing.assert_close(loss.centers[j].double(), before[j] - 0.5 * step, rtol=1e-6, atol=1e-6)


def test_centers_rest_in_evaluation_and_ignore_samples_that_are_not_finite():
    loss = CenterLoss(2, 2)
    x = torch.tensor([[1.0, 2.0], [torch.nan, 0.0]])
    assert loss(x, torch.tensor([0, 1])).isnan()
    assert loss.centers.tolist() == [[0.25, 0.5], [0.0, 0.0]]
    loss.eval()(x, torch.tensor([0, 0]))
    assert loss.centers.tolist() == [[0.25, 0.5], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2), "num_features"),
        ((2, 0), "num_classes"),
        ((2, 2, 1.5), "alpha: expected a finite number from 0"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        CenterLoss(*arguments)


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_are_checked(label):
    loss = CenterLoss(2, 2)
    with pytest.raises(ValueError, match=f"^targets: expected 0 to 1, got {label}"):
        loss(torch.ones(2, 2), torch.tensor([0, label]))
    with pytest.raises(ValueError, match=r"^inputs: expected num_features = 2"):
        loss(torch.ones(2, 3), torch.tensor([0, 1]))
    assert not loss.centers.any()
