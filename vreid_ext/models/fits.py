"""Which backbones a weight file fits."""

from collections.abc import Iterable, Mapping
from functools import cache

import torch
from torch import Tensor

from vreid_ext.models.backbones import BACKBONES, build_backbone
from vreid_ext.weights import Fit, best_fit, expected_tensors


def backbone_fits(tensors: Mapping[str, Tensor], names: Iterable[str] = BACKBONES) -> dict[str, Fit]:
    """How far tensors fit the backbones, by name and shape, the best first.

    Args:
        tensors: of a weight file (`weights.read_tensors`).
        names: names for `build_backbone`.

    Returns:
        name -> `weights.Fit`. A backbone of which no tensor fits is left out.
    """
    fits = {name: best_fit(_expected(name), tensors) for name in names}
    shares = {name: len(fit.fitting) / len(_expected(name)) for name, fit in fits.items()}
    order = sorted((name for name in fits if shares[name]), key=lambda name: -shares[name])
    return {name: fits[name] for name in order}


def fitting_backbones(tensors: Mapping[str, Tensor]) -> list[str]:
    """The backbones whose tensors are all in a weight file."""
    return [name for name, fit in backbone_fits(tensors).items() if fit.complete]


@cache
def _expected(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return expected_tensors(build_backbone(name, last_stride=2))
