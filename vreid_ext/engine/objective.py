"""The training loss of a recipe."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext import ops
from vreid_ext.engine.recipe import TERMS, Loss
from vreid_ext.losses import (
    AITLoss,
    AttributeLoss,
    CrossEntropyLoss,
    DrawnTripletLoss,
    ITLoss,
    OIMLoss,
    TripletLoss,
)
from vreid_ext.losses.drawn import draws_for
from vreid_ext.models import TrainingOutput


class Objective(nn.Module):
    """The weighted sum of a recipe's loss terms (STA, Eq. 7 and 11; ASTA, Eq. 4).

        softmax * cross-entropy(logits) + triplet * triplet(feature)
        + attributes * sum over streams of BCE(attributes)
        + aitl * AITL(feature, attributes) + itl * ITL(feature) + oim * OIM(feature)

    and each extra of the model times the weight of its name. A term of weight 0 is neither computed nor
    reported.

    Args:
        loss: the recipe's weights and what shapes the terms.
        attribute_sizes: the model's attributes, stream by stream; empty for models without.
        gather: brings the rows of all processes together for the terms that compare samples.
        oim: the loss with its tables, for models that are trained with it.

    Raises:
        ValueError: no term, or a term of attributes for a model without attribute streams.
    """

    def __init__(
        self,
        loss: Loss,
        attribute_sizes: Mapping[str, Mapping[str, int]],
        gather: Callable[[Tensor], Tensor],
        oim: OIMLoss | None = None,
    ) -> None:
        super().__init__()
        self.weights = {name: getattr(loss, name) for name in TERMS if getattr(loss, name)}
        if not self.weights:
            raise ValueError(f"loss: expected a weight above 0 for one of {', '.join(TERMS)}; got 0 for all")
        for name in ("attributes", "aitl"):
            if name in self.weights and not attribute_sizes:
                raise ValueError(
                    f"loss.{name}: the model has no stream that recognises attributes; set it to 0"
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
        self.oim = oim

    def forward(
        self, output: TrainingOutput, labels: Tensor, attributes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Unweighted terms by name and their weighted sum under "loss".

        Args:
            output: of the model.
            labels: (B,), one per clip.
            attributes: (B,A) classes, the streams' one after the other; for the terms that need them.
        """
        labels = labels.repeat_interleave(len(output.feature) // len(labels))
        terms: dict[str, Tensor] = {}
        if self.dvdp or self.weights.keys() & {"triplet", "aitl", "itl"}:
            features, identities = self.gather(output.feature), self.gather(labels)
        draws = [self.gather(draws_for(output.feature))] if self.drawn and "triplet" in self.weights else []
        own: dict[str, Callable[[], Tensor]] = {
            "softmax": lambda: self.cross_entropy(output.logits, labels),
            "triplet": lambda: self.triplet(features, identities, *draws),
            "attributes": lambda: self._attributes(output.attributes, attributes),
            "aitl": lambda: self._aitl(features, output.attributes, identities),
            "itl": lambda: self.itl(features, identities),
        }
        if self.oim is not None:
            own["oim"] = partial(self.oim, output.feature, labels)
        for name in self.weights:
            if name in own:
                terms[name] = own[name]()
            elif name in output.extras:
                terms[name] = output.extras[name]
            else:
                raise ValueError(
                    f"loss.{name}: the model gives no such term, it has {sorted(output.extras)}; set it to 0"
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
            raise ValueError("attributes: expected the classes of every clip, got None")
        parts = zip(self.attributes.items(), attributes.split(self.columns, 1), strict=True)
        return torch.stack([loss(logits[name], part) for (name, loss), part in parts]).sum()

    def _aitl(self, features: Tensor, logits: Mapping[str, Tensor], identities: Tensor) -> Tensor:
        if self.by_stream:
            vectors = [self.gather(each.detach()) for each in logits.values()]
        else:
            vectors = [self.gather(torch.cat([each.detach().sigmoid() for each in logits.values()], 1))]
        return torch.stack([self.aitl(features, each, identities) for each in vectors]).mean()
