import pytest
import torch

from vreid_ext.engine import load_recipe
from vreid_ext.engine.optim import build_optimizer, learning_rate, moving_average, set_learning_rate
from vreid_ext.engine.recipe import Group, Optim, Schedule


def test_steps_fall_at_their_milestones():
    schedule = Schedule(milestones=[200, 400])
    rates = [learning_rate(3e-4, schedule, epoch, 800) for epoch in (0, 199, 200, 399, 400, 799)]
    assert rates == pytest.approx([3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-6])


def test_warm_up_rises_linearly_into_the_cosine():
    schedule = Schedule(name="cosine", warmup_epochs=10, warmup_factor=0.01)
    rates = [learning_rate(1.0, schedule, epoch, 30) for epoch in (0, 5, 10, 20)]
    assert rates == pytest.approx([0.01, 0.505, 1.0, 0.5])


def test_the_schedule_of_transreid_gives_the_rates_of_its_code():
    """Rates of `CosineLRScheduler` in damo-cv/TransReID with lr 0.008, 120 epochs and 5 of warm-up."""
    schedule = Schedule(name="transreid", warmup_epochs=5, warmup_factor=0.01)
    rates = [learning_rate(0.008, schedule, epoch, 120) for epoch in (0, 3, 4, 59, 118, 119)]
    expected = [0.001664, 0.006416, 0.007965848, 0.004008, 1.736796e-05, 1.6e-05]
    assert rates == pytest.approx(expected, rel=1e-5)


def test_the_parameters_of_losses_are_a_group_of_their_own():
    model, losses = torch.nn.Linear(2, 3), torch.nn.Linear(2, 5)
    optimizer = build_optimizer(model, Optim(lr=0.5), losses)
    assert [[len(p) for p in group["params"]] for group in optimizer.param_groups] == [[3, 3], [5, 5]]
    assert len(build_optimizer(model, Optim(), torch.nn.ReLU()).param_groups) == 1


def test_the_moving_average_copies_first_and_continues_after_its_steps():
    model = torch.nn.BatchNorm1d(1)
    average = moving_average(model, 0.75, 0)
    for value in (4.0, 8.0):
        torch.nn.init.constant_(model.weight, value)
        model.running_mean.fill_(2 * value)
        average.update_parameters(model)
    assert (average.module.weight.item(), average.module.running_mean.item()) == (5.0, 10.0)
    resumed = moving_average(average.module, 0.75, 2)
    resumed.update_parameters(model)
    assert resumed.module.weight.item() == 5.75


def test_frozen_parameters_get_no_optimizer_state():
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    for name, kind in (("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)):
        optimizer = build_optimizer(model, Optim(name=name, lr=0.5, weight_decay=0.25))
        assert isinstance(optimizer, kind)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.5, 0.25, 1)


def two_layers():
    return torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2), "fc": torch.nn.Linear(2, 2)})


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_groups_learn_at_their_share_of_the_rate(name):
    model = two_layers()
    groups = [Group(["backbone.bias"], 0.0), Group(["backbone"], 0.1)]
    optimizer = build_optimizer(
        model, Optim(name=name, lr=0.5, groups=groups, momentum=0.0, weight_decay=0.0)
    )
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    assert sizes == [1, 1, 2]  # what an earlier group has, a later one has not; the rest comes last
    assert optimizer.param_groups[0]["params"][0] is model["backbone"].bias
    set_learning_rate(optimizer, 0.01)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0, 0.001, 0.01])

    before = {key: value.clone() for key, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = {key: float((before[key] - value).mean()) for key, value in model.state_dict().items()}
    assert moved["backbone.bias"] == 0
    assert moved["backbone.weight"] == pytest.approx(0.001, rel=1e-3)
    assert moved["fc.weight"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ([Group(["backbones"], 0.1)], r"^optim\.groups\[0\]\.parts: .* nearest: 'backbone'"),
        ([Group([], 0.1)], r"^optim\.groups\[0\]\.parts: expected parts .* got \[\]"),
        ([Group(["fc"], 0.1), Group(["fc.bias"], 1)], r"^optim\.groups\[1\]\.parts: .* in no earlier group"),
    ],
)
def test_a_group_that_matches_nothing_is_an_error(groups, says):
    with pytest.raises(ValueError, match=says):
        build_optimizer(two_layers(), Optim(groups=groups))


def test_adamw_decays_weights_apart_from_the_gradient():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = build_optimizer(model, Optim(name="adamw", lr=0.1, weight_decay=0.5))
    model.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 0.1 * 0.5)


def test_nesterov_looks_ahead():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = build_optimizer(model, Optim(name="sgd", lr=0.1, weight_decay=0, momentum=0.5, nesterov=True))
    model.weight.grad = torch.ones(1, 1)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 0.1 * (1 + 0.5))


@pytest.mark.parametrize("bad", [["optim.nesterov=true"], ["optim.groups=[{parts: [fc], lr_factor: -1}]"]])
def test_options_that_do_not_go_together_name_the_key(bad):
    with pytest.raises(ValueError, match=r"^optim\.(nesterov|groups\[0\]\.lr_factor): expected "):
        load_recipe("synth_sta", bad)
