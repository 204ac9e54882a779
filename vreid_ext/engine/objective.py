"""Training loss of a recipe."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import ops
from vreid_ext.distributed import gather_with_gradient
from vreid_ext.engine.recipe import TERMS, Loss
from vreid_ext.losses import (
    AITLoss,
    AttributeLoss,
    CenterLoss,
    CrossEntropyLoss,
    DrawnTripletLoss,
    ITLoss,
    OIMLoss,
    TripletLoss,
)
from vreid_ext.losses.drawn import draws_for
from vreid_ext.losses.expression import LossExpression
from vreid_ext.models import TrainingOutput
from vreid_ext.precision import widened


def objective_of(loss: Loss, model: nn.Module, classes: int) -> "Objective":
    """The training loss of a recipe for a model with this number of classes."""
    oim = center = pml = None
    used = [name for name in ("oim", "center", "pml") if getattr(loss, name)]
    if used and not hasattr(model, "feature_dim"):
        kind = type(model).__name__
        raise ValueError(f"loss.{used[0]}: expected a model with the attribute feature_dim, got {kind}")
    size = cast(int, getattr(model, "feature_dim", 0))
    if loss.oim:
        oim = OIMLoss(size, classes, loss.oim_scalar, loss.oim_momentum)
    if loss.center:
        center = CenterLoss(size, classes, loss.center_alpha)
    if loss.pml:
        pml = LossExpression(loss.pml, classes, size)
    return Objective(
        loss, getattr(model, "attribute_sizes", {}), gather_with_gradient, oim=oim, center=center, pml=pml
    )


class Objective(nn.Module):
    """Weighted sum of the loss terms of a recipe (STA, Eq. 7 and 11; ASTA, Eq. 4).

        softmax * cross-entropy(logits) + triplet * triplet(feature)
        + attributes * sum over streams of BCE(attributes)
        + aitl * AITL(feature, attributes) + itl * ITL(feature) + oim * OIM(feature)
        + center * center(feature) + sum over the losses of `pml` of weight * loss(feature)
        + sum over the model's extras of weight * extra

    OIM compares the L2-normalized feature of the evaluation. The weight of an extra is the field of `Loss`
    with the same name. A term with weight 0 is neither computed nor logged.

    Args:
        loss: weights and parameters of the terms.
        attribute_sizes: number of classes of each attribute, for each attribute stream of the model; empty if
            the model has none.
        gather: concatenates a tensor over all processes, for the terms that compare samples.
        oim, center: the OIM loss and the center loss, if their weights are not 0.
        pml: the losses of `Loss.pml`, if there are any.

    Raises:
        ValueError: all weights are 0, or a term requires attributes and the model has no attribute streams.
    """

    def __init__(
        self,
        loss: Loss,
        attribute_sizes: Mapping[str, Mapping[str, int]],
        gather: Callable[[Tensor], Tensor],
        *,
        oim: OIMLoss | None = None,
        center: CenterLoss | None = None,
        pml: LossExpression | None = None,
    ) -> None:
        super().__init__()
        self.weights = {name: getattr(loss, name) for name in TERMS if getattr(loss, name)}
        if pml is not None:
            self.weights |= pml.weights
        if not self.weights:
            raise ValueError(f"loss: expected a weight above 0 for one of {', '.join(TERMS)}, got 0 for all")
        for name in ("attributes", "aitl"):
            if name in self.weights and not attribute_sizes:
                raise ValueError(
                    f"loss.{name}: expected 0 for a model without attribute streams, got {self.weights[name]}"
                )
        self.gather, self.dvdp, self.metric = gather, loss.dvdp, loss.metric
        self.cross_entropy = CrossEntropyLoss(loss.label_smoothing)
        self.drawn = loss.mining == "drawn"
        triplet = DrawnTripletLoss if self.drawn else TripletLoss
        self.triplet = triplet(loss.margin, metric=loss.metric)
        self.attributes = nn.ModuleDict({name: AttributeLoss(each) for name, each in attribute_sizes.items()})
        self.columns = [len(sizes) for sizes in attribute_sizes.values()]
        self.by_stream = loss.aitl_form == "authors"
        mining: dict[str, Any] = (
            {"attribute_metric": "euclidean", "include_self": True} if self.by_stream else {}
        )
        self.aitl = AITLoss(metric=loss.metric, **mining)
        self.itl = ITLoss(metric=loss.metric)
        self.oim, self.center, self.pml = oim, center, pml

    def forward(
        self, output: TrainingOutput, labels: Tensor, attributes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the unweighted terms by name, and their weighted sum as "loss".

        Args:
            output: output of the model in training mode.
            labels: (B,) class indices of the clips. If the model returns several features per clip, each
                label is repeated.
            attributes: (B,A) class indices of the attributes, concatenated over the streams; required by the
                term `attributes`.
        """
        labels = labels.repeat_interleave(len(output.feature) // len(labels))
        terms: dict[str, Tensor] = {}
        if self.dvdp or self.pml is not None or self.weights.keys() & {"triplet", "aitl", "itl"}:
            features, identities = self.gather(output.feature), self.gather(labels)
        draws = [self.gather(draws_for(output.feature))] if self.drawn and "triplet" in self.weights else []
        builtin: dict[str, Callable[[], Tensor]] = {
            "softmax": lambda: self.cross_entropy(output.logits, labels),
            "triplet": lambda: self.triplet(features, identities, *draws),
            "attributes": lambda: self._attributes(output.attributes, attributes),
            "aitl": lambda: self._aitl(features, output.attributes, identities),
            "itl": lambda: self.itl(features, identities),
        }
        if self.oim is not None:
            stored = output.feature
            if output.compared is not None:
                stored = F.normalize(widened(output.compared), dim=1)
            builtin["oim"] = partial(self.oim, stored, labels)
        if self.center is not None:
            builtin["center"] = partial(self.center, output.feature, labels)
        # Every process computes them from the same rows, so their parameters stay the same in all.
        metric = {} if self.pml is None else self.pml(features, identities)
        for name in self.weights:
            if name in metric:
                terms[name] = metric[name]
            elif name in builtin:
                terms[name] = builtin[name]()
            elif name in output.extras:
                terms[name] = output.extras[name]
            else:
                raise ValueError(
                    f"loss.{name}: expected 0, because the model only provides the terms "
                    f"{sorted(output.extras)}, got {self.weights[name]}"
                )
        terms["loss"] = sum(
            (self.weights[name] * term for name, term in terms.items()), output.logits.new_zeros(())
        )
        if self.dvdp:
            total, count = ops.dvdp(features.detach(), identities, metric=self.metric)
            terms["dvdp"] = total / count.clamp(min=1)
        return terms

    def _attributes(self, logits: Mapping[str, Tensor], attributes: Tensor | None) -> Tensor:
        if attributes is None:
            raise ValueError("attributes: expected class indices for each clip, got None")
        parts = zip(self.attributes.items(), attributes.split(self.columns, 1), strict=True)
        return torch.stack([loss(logits[name], part) for (name, loss), part in parts]).sum()

    def _aitl(self, features: Tensor, logits: Mapping[str, Tensor], identities: Tensor) -> Tensor:
        if self.by_stream:
            vectors = [self.gather(each.detach()) for each in logits.values()]
        else:
            vectors = [self.gather(torch.cat([each.detach().sigmoid() for each in logits.values()], 1))]
        return torch.stack([self.aitl(features, each, identities) for each in vectors]).mean()
