"""Supervised contrastive loss: could a kernel on tiles, without the n x n matrix, be three times as fast?

Such a kernel computes half of the symmetric product in the forward pass, the same half again in backward,
because nothing of size n x n is stored, and one full product of the slopes with the rows. "Two products"
takes their time without any exponential, so it is a lower limit of the kernel. The batch-hard triplet loss
needs half a product, because only the selected pairs have a gradient.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vreid_ext.losses import TripletLoss

TEMPERATURE, D = 0.1, 2048


def supervised_contrastive(x: Tensor, labels: Tensor) -> Tensor:
    """Khosla et al., NeurIPS 2020, Eq. 2, in plain torch."""
    unit = F.normalize(x)
    itself = torch.eye(len(x), dtype=torch.bool)
    logits = (unit @ unit.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    log_probability = logits - logits.logsumexp(1, keepdim=True)
    positive = (labels[:, None] == labels) & ~itself
    return -(log_probability.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


@pytest.mark.parametrize("n", [64, 512, 2048, 8192])
def test_supervised_contrastive_loss(side_by_side, n):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    x, labels = torch.randn(n, D, requires_grad=True), torch.arange(n) // 4
    unit, slopes = F.normalize(x.detach()), torch.randn(n, n)
    package = losses.SupConLoss(TEMPERATURE)
    torch.testing.assert_close(supervised_contrastive(x, labels), package(x, labels))

    def step(loss):
        return lambda: torch.autograd.grad(loss(x, labels), x)

    side_by_side(
        f"n = {n}, D = {D}",
        {
            "ours": step(TripletLoss(0.3)),
            "two products": lambda: (unit @ unit.T, slopes @ unit),
            "SupCon, plain torch": step(supervised_contrastive),
            "SupCon, pytorch-metric-learning": step(package),
        },
        group="supervised contrastive loss",
        long=3 if n > 2048 else None,
    )
