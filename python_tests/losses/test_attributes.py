import pytest
import torch
import torch.nn.functional as F

from vreid_ext.losses import AttributeLoss
from vreid_ext.metrics import attribute_scores

SIZES = {"hat": 2, "pose": 3}


def test_is_the_mean_over_what_is_known():
    torch.manual_seed(0)
    logits = torch.randn(3, 5, requires_grad=True)
    targets = torch.tensor([[1, 2], [-1, 0], [-1, -1]])
    wanted = torch.tensor([[0.0, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    known = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    loss = AttributeLoss(SIZES)(logits, targets)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[known], wanted[known]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient != 0, known)


def test_nothing_known_is_zero():
    loss = AttributeLoss(SIZES)(torch.randn(2, 5, requires_grad=True), torch.full((2, 2), -1))
    loss.backward()
    assert loss == 0


def test_half_precision_computes_in_float32():
    logits, targets = torch.randn(4, 5).bfloat16(), torch.zeros(4, 2).long()
    assert torch.equal(AttributeLoss(SIZES)(logits, targets), AttributeLoss(SIZES)(logits.float(), targets))


@pytest.mark.parametrize(
    ("logits", "targets", "error", "message"),
    [
        (
            torch.zeros(2, 4),
            torch.zeros(2, 2).long(),
            ValueError,
            r"logits: expected shape \(n, 5\), got \(2, 4\)",
        ),
        (torch.zeros(2, 5).long(), torch.zeros(2, 2).long(), TypeError, "logits: expected .*got torch.int64"),
        (torch.zeros(2, 5), torch.zeros(2, 2), TypeError, "expected an int64 tensor .*, got torch.float32"),
        (torch.zeros(2, 5), torch.zeros(2, 3).long(), ValueError, "targets: expected shape"),
        (
            torch.zeros(2, 5),
            torch.tensor([[0, 0], [0, 3]]),
            ValueError,
            "expected 0 to 2, .*, got class 3 of 'pose' in row 1",
        ),
        (torch.zeros(2, 5), torch.tensor([[-2, 0], [0, 0]]), ValueError, "got class -2 of 'hat' in row 0"),
    ],
)
def test_bad_input(logits, targets, error, message):
    for call in (AttributeLoss(SIZES), lambda *given: attribute_scores(*given, SIZES)):
        with pytest.raises(error, match=message):
            call(logits, targets)


def test_scores_by_hand():
    # hat: answers 0 0 1 1, targets 0 1 1 1; pose: answers 0 1 0, targets 0 1 1, one unknown
    logits = torch.tensor([[2.0, 1, 5, 0, 0], [1, 0, 0, 5, 0], [0, 1, 5, 0, 0], [0, 1, 0, 0, 9]])
    targets = torch.tensor([[0, 0], [1, 1], [1, 1], [1, -1]])
    scores = attribute_scores(logits, targets, SIZES)
    assert scores["hat"] == {"accuracy": 0.75, "f1": pytest.approx((2 / 3 + 4 / 5) / 2), "samples": 4}
    assert scores["pose"] == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3), "samples": 3}
    assert attribute_scores(logits, torch.full((4, 2), -1), SIZES) == {}
