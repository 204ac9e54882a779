"""Layer-wise learning rate decay."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from vreid_ext.models import Backbone


def layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """The factor of the learning rate of each parameter of the model's backbone, by name.

        decay^(L - depth)

    with the depth of `Backbone.depths` and L = 1 + the largest depth. Parameters outside the backbone have no
    entry; their factor is 1.

    Raises:
        ValueError: the model has no `Backbone`, or several (STAL has two parts of one).

    Source: Clark et al., ELECTRA, ICLR 2020; used for ViTs since BEiT (Bao et al., ICLR 2022).
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, Backbone)}
    if len(found) != 1:
        raise ValueError(
            f"optim.layer_decay: expected 1 for a model without exactly one backbone, got {decay} and "
            f"{len(found)} backbones"
        )
    ((prefix, backbone),) = found.items()
    depths = backbone.depths()
    layers = 1 + max(depths.values())
    return {f"{prefix}.{name}": decay ** (layers - depth) for name, depth in depths.items()}


def by_layer(
    groups: Iterable[dict[str, Any]], model: nn.Module, lr: float, decay: float
) -> list[dict[str, Any]]:
    """Divide parameter groups of an optimizer by the factors of `layer_factors`."""
    factors = layer_factors(model, decay)
    of = {id(value): factors.get(name, 1.0) for name, value in model.named_parameters()}
    divided = []
    for group in groups:
        of_factor: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            of_factor.setdefault(of[id(parameter)], []).append(parameter)
        for factor, parameters in of_factor.items():
            total = group.get("lr_factor", 1.0) * factor
            divided.append(group | {"params": parameters, "lr": lr * total, "lr_factor": total})
    return divided
