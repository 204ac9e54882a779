"""Identity-hard triplet losses: anchor, positive and negative have the same identity."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import _checks, ops


class AITLoss(nn.Module):
    """Attribute-aware identity-hard triplet loss, AITL (Chen et al., 2020, Eq. 2 and 3).

        mean over anchors a of  [ m + FD(x_a, x_AN(a)) - FD(x_a, x_AP(a)) ]_+

    AN and AP are the samples of the anchor's identity whose attribute predictions are farthest from and
    nearest to those of the anchor. The loss pulls the features of AN as close to the anchor as those of AP.
    Anchors without another sample of their identity are excluded; without any anchor the loss is zero.
    (Eq. 2 sums over the anchors.)

    Args:
        margin: m >= 0; 0 in the paper.
        metric: FD, "cosine" (the paper), "euclidean" or "squared".
        attribute_metric: distance of the attribute vectors, "cosine" (the paper) or "euclidean" (the
            authors' code).
        include_self: let the anchor be its own AP, as in the authors' code. The paper has j != a.
        backend: "auto", "reference", "native", "triton" or "cuda".

    Call: `loss(features, attributes, targets)` with floating-point features (n,D) and attributes (n,A) and
    integer identities targets (n,) returns a float32 scalar (float64 for float64 features). The selection of
    AN and AP has no gradient.

    For an identity with fewer than three samples AN = AP, so its loss is constant. The first call warns if
    the batch contains such identities.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(
        self,
        margin: float = 0.0,
        *,
        metric: str = "cosine",
        attribute_metric: str = "cosine",
        include_self: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        number = _checks.margin(margin)
        if number == "soft":
            raise ValueError("margin: expected a number, got 'soft'")
        self.margin = number
        self.metric = _checks.choice("metric", metric, _checks.METRICS)
        self.attribute_metric = _checks.choice("attribute_metric", attribute_metric, _checks.METRICS)
        self.include_self, self.backend = include_self, backend
        self._checked = False

    def forward(self, features: Tensor, attributes: Tensor, targets: Tensor) -> Tensor:
        _checks.labelled_rows("features", features, "targets", targets, empty=False)
        _checks.labelled_rows("attributes", attributes, "targets", targets, empty=False)
        hard = ops.identity_hard(
            attributes,
            targets,
            metric=self.attribute_metric,
            include_self=self.include_self,
            backend=self.backend,
        )
        if not self._checked and _checks.readable(targets):
            self._checked = True  # only once: the check synchronizes with a GPU
            _warn_of_few(targets)
        index = torch.stack([hard.negative_index, hard.positive_index])
        far, near = ops.mined_distance(features, index, metric=self.metric, backend=self.backend)
        loss = F.relu(self.margin + far - near).masked_fill(~hard.valid, 0)
        return loss.sum() / hard.valid.sum().clamp(min=1)

    def extra_repr(self) -> str:
        return f"margin={self.margin!r}, metric={self.metric!r}, include_self={self.include_self}"


class ITLoss(AITLoss):
    """Identity-hard triplet loss, ITL: AITL with AN and AP selected by the features (Section 5.1, Table 1).

    Call: `loss(features, targets)`. For arguments, result and errors see `AITLoss`. With margin 0 its value
    is the DVDP of Eq. 1 (`ops.dvdp`).
    """

    def __init__(self, margin: float = 0.0, *, metric: str = "cosine", backend: str = "auto") -> None:
        super().__init__(margin, metric=metric, attribute_metric=metric, backend=backend)

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(features, features, targets)


def _warn_of_few(targets: Tensor) -> None:
    _, counts = targets.unique(return_counts=True)
    few = int((counts < 3).sum())
    if few:
        warnings.warn(
            f"{few} of {len(counts)} identities in the batch have fewer than 3 samples: their farthest and "
            "nearest sample are the same, so their identity-hard loss is constant; use K >= 3 samples per "
            "identity",
            stacklevel=3,
        )
