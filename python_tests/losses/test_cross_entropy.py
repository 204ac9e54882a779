import pytest
import torch

from vreid_ext.losses import CrossEntropyLoss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_agrees_with_the_definition(smoothing):
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3, 1, 1, 2])
    wanted = torch.full((5, 4), smoothing / 4, dtype=torch.float64)
    wanted[torch.arange(5), targets] += 1 - smoothing
    loss = -(wanted * (logits.exp() / logits.exp().sum(1, keepdim=True)).log()).sum(1).mean()
    torch.testing.assert_close(CrossEntropyLoss(smoothing)(logits, targets), loss)


def test_autocast_computes_in_float32():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.tensor([0, 3, 1, 1, 2])
    wanted = CrossEntropyLoss(0.1)(logits.float(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        got = CrossEntropyLoss(0.1)(logits, targets.int())
    assert got.dtype == torch.float32
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_bad_smoothing(smoothing):
    with pytest.raises(ValueError, match=r"^label_smoothing: expected"):
        CrossEntropyLoss(smoothing)


def test_bad_logits():
    with pytest.raises(ValueError, match=r"^logits: expected shape"):
        CrossEntropyLoss()(torch.randn(2, 3, 4), torch.tensor([0, 1]))


@pytest.mark.parametrize("target", [4, -1, -100])
def test_a_target_out_of_range_is_named(target):
    """torchreid 250; and torch leaves out samples of target -100."""
    with pytest.raises(ValueError, match=rf"^targets: expected 0 to 3, got {target}"):
        CrossEntropyLoss()(torch.randn(2, 4), torch.tensor([0, target]))
