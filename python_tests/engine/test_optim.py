import pytest
import torch

from vreid_ext.engine.config import Optim, Schedule
from vreid_ext.engine.optim import build_optimizer, learning_rate


def test_steps_fall_at_their_milestones():
    schedule = Schedule(milestones=[200, 400])
    rates = [learning_rate(3e-4, schedule, epoch, 800) for epoch in (0, 199, 200, 399, 400, 799)]
    assert rates == pytest.approx([3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-6])


def test_warm_up_rises_linearly_into_the_cosine():
    schedule = Schedule(name="cosine", warmup_epochs=10, warmup_factor=0.01)
    rates = [learning_rate(1.0, schedule, epoch, 30) for epoch in (0, 5, 10, 20)]
    assert rates == pytest.approx([0.01, 0.505, 1.0, 0.5])


def test_frozen_parameters_get_no_optimizer_state():
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    for name, kind in (("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)):
        optimizer = build_optimizer(model, Optim(name=name, lr=0.5, weight_decay=0.25))
        assert isinstance(optimizer, kind)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.5, 0.25, 1)
