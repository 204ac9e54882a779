"""Argument checks shared by the losses."""

from typing import Any

import torch
from torch import Tensor

from vreid_ext.ops._checks import choice, integer, margin, mask, real, within
from vreid_ext.ops.mining import METRICS

__all__ = ["batch", "choice", "integer", "margin", "mask", "metric", "real", "within"]


def batch(name: str, inputs: Any, targets: Any) -> None:
    """`inputs` is a floating (n,D) and `targets` an integer (n,) tensor, on one device."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"{name}: got {type(inputs).__name__}, wanted a tensor (n,D)")
    if not inputs.is_floating_point():
        raise TypeError(f"{name}: got dtype {inputs.dtype}, wanted a floating-point one")
    if inputs.dim() != 2 or 0 in inputs.shape:
        raise ValueError(f"{name}: got shape {tuple(inputs.shape)}, wanted (n,D) with n and D at least 1")
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets: got {type(targets).__name__}, wanted a tensor (n,)")
    if targets.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"targets: got dtype {targets.dtype}, wanted int64 or int32")
    if targets.shape != inputs.shape[:1]:
        raise ValueError(
            f"targets: got shape {tuple(targets.shape)}, wanted ({inputs.shape[0]},) as {name} has rows"
        )
    if targets.device != inputs.device:
        raise ValueError(f"targets: got device {targets.device}, wanted {inputs.device} as {name}")


def metric(value: Any) -> str:
    choice("metric", value, METRICS)
    return str(value)
