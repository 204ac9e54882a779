"""Batch-hard triplet loss, forward and backward, against other packages and one full matrix product."""

import pytest
import torch
from baselines_mining import MARGIN, anchor_loop, cdist, metric_learning

from vreid_ext.losses import TripletLoss

K = 4


@pytest.mark.parametrize(("n", "dimensions"), [(64, 2048), (2048, 2048), (8192, 512)])
def test_triplet_loss(side_by_side, device, n, dimensions):
    pytest.importorskip("pytorch_metric_learning")
    x = torch.randn(n, dimensions, device=device, requires_grad=True)
    labels = torch.arange(n, device=device) // K
    losses = {"ours": TripletLoss(MARGIN), "metric-learning": metric_learning(), "cdist": cdist}
    if n == 64:  # a step takes seconds for larger n
        losses["anchor by anchor"] = anchor_loop
    values = [loss(x, labels).item() for loss in losses.values()]
    assert values == pytest.approx([values[0]] * len(values), rel=1e-3)

    repeats = 20 if n == 64 else 1  # a single small step would mainly measure cold caches

    def repeated(function):
        def run():
            for _ in range(repeats):  # each result is freed before the next step, as in training
                function()

        return run

    def step(loss):
        return repeated(lambda: torch.autograd.grad(loss(x, labels), x))

    fixed = x.detach()
    providers = {name: step(loss) for name, loss in losses.items()}
    providers["one product x @ x.T"] = repeated(lambda: fixed @ fixed.T)
    case = f"n = {n}, D = {dimensions}" + (f", {repeats} steps" if repeats > 1 else "")
    side_by_side(case, providers, group="triplet loss forward and backward")
