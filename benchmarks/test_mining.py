"""Batch-hard triplet loss, forward and backward, against other packages and one full matrix product."""

import pytest
import torch
from rivals_mining import MARGIN, anchor_loop, cdist, metric_learning

from vreid_ext.losses import TripletLoss

K = 4


@pytest.mark.parametrize(("n", "dimensions"), [(64, 2048), (2048, 2048), (8192, 512)])
def test_triplet_loss(side_by_side, device, n, dimensions):
    pytest.importorskip("pytorch_metric_learning")
    x = torch.randn(n, dimensions, device=device, requires_grad=True)
    labels = torch.arange(n, device=device) // K
    losses = {"ours": TripletLoss(MARGIN), "metric-learning": metric_learning(), "cdist": cdist}
    if n <= 2048:  # minutes for more
        losses["anchor by anchor"] = anchor_loop
    values = [loss(x, labels).item() for loss in losses.values()]
    assert values == pytest.approx([values[0]] * len(values), rel=1e-3)

    def step(loss):
        return lambda: torch.autograd.grad(loss(x, labels), x)

    fixed = x.detach()
    providers = {name: step(loss) for name, loss in losses.items()}
    providers["one product x @ x.T"] = lambda: fixed @ fixed.T
    side_by_side(f"n = {n}, D = {dimensions}", providers, group="triplet loss forward and backward")
