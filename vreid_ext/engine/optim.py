"""Optimizers and learning rates of a recipe; the rate is a function of the epoch, without a state."""

import math
from typing import Any

import torch
from torch import nn

from vreid_ext.engine.parts import check_parts, within
from vreid_ext.engine.recipe import Optim, Schedule


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD over the parameters that require a gradient.

    Parameter groups come in the order of `optim.groups`, each with its `lr_factor`, then the parameters left.

    Raises:
        ValueError: a group names no part of the model, or has no parameter of its own to train.
    """
    left = {name: value for name, value in model.named_parameters() if value.requires_grad}
    groups: list[dict[str, Any]] = []
    for number, group in enumerate(optim.groups):
        key = f"optim.groups[{number}].parts"
        check_parts(key, group.parts, model)
        own = [name for name in left if any(within(name, part) for part in group.parts)]
        if not own:
            raise ValueError(
                f"{key}: expected parts with parameters that are trained and in no earlier group, "
                f"got {group.parts}"
            )
        factor = group.lr_factor
        groups.append(
            {"params": [left.pop(name) for name in own], "lr": optim.lr * factor, "lr_factor": factor}
        )
    if left or not groups:
        groups.append({"params": list(left.values())})
    if optim.name == "sgd":
        return torch.optim.SGD(
            groups, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay,
            nesterov=optim.nesterov,
        )  # fmt: skip
    kind = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=optim.lr, weight_decay=optim.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)


def learning_rate(lr: float, schedule: Schedule, epoch: int, epochs: int) -> float:
    """The rate of epoch 0 .. epochs - 1.

    warm-up (epoch < w):  lr (f + (1 - f) epoch / w)
    step:                 lr gamma^(milestones at or before epoch)
    cosine:               lr (1 + cos(pi (epoch - w) / (epochs - w))) / 2
    """
    warmup = schedule.warmup_epochs
    if epoch < warmup:
        return lr * (schedule.warmup_factor + (1 - schedule.warmup_factor) * epoch / warmup)
    if schedule.name == "cosine":
        return lr * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1))) / 2
    return lr * schedule.gamma ** sum(milestone <= epoch for milestone in schedule.milestones)
