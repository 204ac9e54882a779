"""Optimizer and learning rate schedule of a recipe. The schedule is a stateless function of the epoch."""

import math
from typing import Any

import torch
from torch import nn

from vreid_ext.engine.layer_decay import by_layer
from vreid_ext.engine.parts import check_parts, within
from vreid_ext.engine.recipe import Optim, Schedule


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Build Adam, AdamW or SGD over the parameters that require gradients.

    The parameter groups are those of `optim.groups`, each with its `lr_factor`, then one group with the
    remaining parameters. With a `layer_decay` each of them is divided by layers.

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
    if optim.name == "sgd":
        return torch.optim.SGD(
            groups, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay,
            nesterov=optim.nesterov,
        )  # fmt: skip
    kind = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=optim.lr, weight_decay=optim.weight_decay)


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
    """
    warmup = schedule.warmup_epochs
    if epoch < warmup:
        return lr * (schedule.warmup_factor + (1 - schedule.warmup_factor) * epoch / warmup)
    if schedule.name == "cosine":
        return lr * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1))) / 2
    return lr * schedule.gamma ** sum(milestone <= epoch for milestone in schedule.milestones)
