"""Optimizer and learning rate schedule of a recipe. The schedule is a stateless function of the epoch."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vreid_ext.engine.layer_decay import by_layer
from vreid_ext.engine.parts import check_parts, within
from vreid_ext.engine.recipe import Optim, Schedule


def build_optimizer(
    model: nn.Module, optim: Optim, objective: nn.Module | None = None
) -> torch.optim.Optimizer:
    """Build Adam, AdamW or SGD over the parameters that require gradients.

    The parameter groups are those of `optim.groups`, each with its `lr_factor`, then one group with the
    remaining parameters. With a `layer_decay` each of them is divided by layers. Parameters of the losses
    (`objective`) are in one more group.

    Raises:
        ValueError: a group contains a name that is not a part of the model, or adds no trainable parameter to
            the groups before it.
    """
    remaining = {name: value for name, value in model.named_parameters() if value.requires_grad}
    groups: list[dict[str, Any]] = []
    for number, group in enumerate(optim.groups):
        key = f"optim.groups[{number}].parts"
        check_parts(key, group.parts, model)
        selected = [name for name in remaining if any(within(name, part) for part in group.parts)]
        if not selected:
            raise ValueError(
                f"{key}: expected parts with trainable parameters that are in no earlier group, "
                f"got {group.parts}"
            )
        factor = group.lr_factor
        groups.append(
            {
                "params": [remaining.pop(name) for name in selected],
                "lr": optim.lr * factor,
                "lr_factor": factor,
            }
        )
    if remaining or not groups:
        groups.append({"params": list(remaining.values())})
    if optim.layer_decay != 1:
        groups = by_layer(groups, model, optim.lr, optim.layer_decay)
    if objective is not None and (parameters := list(objective.parameters())):
        groups.append({"params": parameters})
    if optim.name == "sgd":
        return torch.optim.SGD(
            groups, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay,
            nesterov=optim.nesterov,
        )  # fmt: skip
    kind = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=optim.lr, weight_decay=optim.weight_decay)


def moving_average(model: nn.Module, decay: float, steps: int) -> AveragedModel:
    """Exponential moving average of the parameters and buffers of a model, for `update_parameters(model)`.

    Args:
        model: the model. Its current values are those of the average.
        decay: decay of the average at each update. The first update copies the model.
        steps: number of updates of which the model's values are the result.
    """
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    average.n_averaged.fill_(steps)
    return average


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of each parameter group to lr x lr_factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)


def learning_rate(lr: float, schedule: Schedule, epoch: int, epochs: int) -> float:
    """Learning rate of an epoch in 0 .. epochs - 1.

    warm-up (epoch < w):  lr (f + (1 - f) epoch / w)
    step:                 lr gamma^m
    cosine:               lr (1 + cos(pi (epoch - w) / (epochs - w))) / 2

    with w = warmup_epochs, f = warmup_factor and m = number of milestones <= epoch.

    transreid (He et al., ICCV 2021, official code), with t = epoch + 1 and g = 0.002:

    warm-up (t < w):      lr (f + (1 - f) t / w)
    else:                 lr (g + (1 - g) (1 + cos(pi t / epochs)) / 2)
    """
    warmup = schedule.warmup_epochs
    if schedule.name == "transreid":
        return lr * _transreid(epoch + 1, epochs, warmup, schedule.warmup_factor)
    if epoch < warmup:
        return lr * (schedule.warmup_factor + (1 - schedule.warmup_factor) * epoch / warmup)
    if schedule.name == "cosine":
        return lr * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1))) / 2
    return lr * schedule.gamma ** sum(milestone <= epoch for milestone in schedule.milestones)


def _transreid(t: int, epochs: int, warmup: int, warmup_factor: float, last: float = 0.002) -> float:
    if t < warmup:
        return warmup_factor + (1 - warmup_factor) * t / warmup
    return last + (1 - last) * (1 + math.cos(math.pi * t / epochs)) / 2
