"""Optimizers and learning rates of a recipe; the rate is a function of the epoch, without a state."""

import math

import torch
from torch import nn

from vreid_ext.engine.config import Optim, Schedule


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Adam or SGD over the parameters that require a gradient."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if optim.name == "adam":
        return torch.optim.Adam(parameters, lr=optim.lr, weight_decay=optim.weight_decay)
    return torch.optim.SGD(parameters, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)


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
