import pytest
import torch
from pytorch_metric_learning import distances, losses, miners

from vreid_ext.losses import metric_learning
from vreid_ext.losses.expression import LossExpression

LABELS = torch.arange(12) // 3


def rows():
    torch.manual_seed(0)
    return torch.randn(12, 8, requires_grad=True)


def test_the_terms_are_those_of_the_package():
    x = rows()
    text = "0.5 * CircleLoss(m=0.25, gamma=256) + SupConLoss(temperature=0.2) + CircleLoss(0.3)"
    expression = LossExpression(text, 4, 8)
    assert expression.weights == {"CircleLoss": 0.5, "SupConLoss": 1.0, "CircleLoss2": 1.0}
    terms = expression(x, LABELS)
    expected = (losses.CircleLoss(0.25, 256), losses.SupConLoss(0.2), losses.CircleLoss(0.3))
    for term, loss in zip(terms.values(), expected, strict=True):
        torch.testing.assert_close(term, loss(x, LABELS), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ArcFaceLoss", "CosFaceLoss", "SubCenterArcFaceLoss", "ProxyAnchorLoss"])
def test_classifiers_get_the_number_of_classes_and_the_size_of_the_rows(name):
    x = rows()
    torch.manual_seed(1)
    expression = LossExpression(f"{name}(margin=0.2)", 4, 8)
    torch.manual_seed(1)
    expected = getattr(losses, name)(num_classes=4, embedding_size=8, margin=0.2)
    (term,), (weight,) = expression(x, LABELS).values(), expression.parameters()
    torch.testing.assert_close(term, expected(x, LABELS), rtol=0, atol=0)
    assert torch.autograd.grad(term, weight)[0].any()


def test_the_miner_is_fused_and_mines_what_the_original_mines():
    distance = "distance=LpDistance(normalize_embeddings=False)"
    text = f"ContrastiveLoss({distance}, pos_margin=-0.5, miner=BatchHardMiner({distance}))"
    expression = LossExpression(text, 4, 8)
    assert type(expression.miners["ContrastiveLoss"]) is metric_learning.BatchHardMiner
    plain = distances.LpDistance(normalize_embeddings=False)
    x = rows()
    mined = miners.BatchHardMiner(distance=plain)(x, LABELS)
    expected = losses.ContrastiveLoss(distance=plain, pos_margin=-0.5)(x, LABELS, mined)
    torch.testing.assert_close(expression(x, LABELS)["ContrastiveLoss"], expected)
    triplet = LossExpression("TripletMarginLoss(miner=BatchHardMiner())", 4, 8)
    assert type(triplet.losses["TripletMarginLoss"]) is metric_learning.TripletMarginLoss


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected \[weight \*\] Loss\(...\) \+ ..., got"),
        ("CircleLoss", r"expected \[weight \*\] Loss"),
        ("CircleLoss(", r"expected \[weight \*\] Loss"),
        ("CircleLoss() - SupConLoss()", r"expected \[weight \*\] Loss"),
        ("(" * 500 + ")" * 500, r"expected \[weight \*\] Loss"),
        ("0 * CircleLoss()", "expected finite numbers above 0 as weights, got 0"),
        ("1e999 * CircleLoss()", "expected finite numbers above 0 as weights"),
        ("m * CircleLoss()", "expected finite numbers above 0 as weights, got m"),
        ("CircelLoss(m=1)", "expected one of the losses .*, got 'CircelLoss'; did you mean 'CircleLoss'"),
        ("losses.CircleLoss()", "expected one of the losses"),
        ("__import__('os').getcwd()", "expected one of the losses"),
        ("CircleLoss(m=open('x'))", "expected one of the arguments .*, got 'open'"),
        ("CircleLoss(m=[].append)", "expected literals or calls"),
        ("CircleLoss(distance=LpDistanc())", "did you mean 'LpDistance'"),
        ("CircleLoss(margin=1)", "got CircleLoss.margin=1.: .*unexpected keyword argument 'margin'"),
        ("CircleLoss(gamma='a')", "got CircleLoss: "),
        ("CircleLoss(**{'m': 1})", "expected arguments by name"),
        ("CircleLoss(reducer=DoNothingReducer())", "not a scalar"),
        ("ArcFaceLoss(num_classes=2)", "got ArcFaceLoss: "),
        ("InstanceLoss(miner=BatchHardMiner())", "indices_tuple is not supported"),
        ("CircleLoss(miner=3)", "expected the call of a miner, got 3"),
        ("CircleLoss(miner=HardMiner())", "did you mean 'BatchHardMiner'"),
        ("CrossBatchMemory()", "expected a loss that recipes support, got CrossBatchMemory, which keeps"),
    ],
)
def test_errors_name_the_key_and_suggest_names(text, message):
    with pytest.raises(ValueError, match=rf"^loss.pml: .*{message}"):
        LossExpression(text, 4, 8)


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(metric_learning, "INSTALLED", False)
    with pytest.raises(ImportError, match=r"vreid-ext\[metric-learning\]"):
        LossExpression("CircleLoss()", 4, 8)
