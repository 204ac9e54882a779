"""Random triplets, as an alternative to the hardest triplets of the batch."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import _checks


class Drawn(NamedTuple):
    """Result of `draw_triplets`.

    Attributes:
        positive, negative: (n,) index of another sample of the anchor's identity, and of a sample of a
            different identity; undefined where `anchors` is False.
        anchors: (n,) bool, the samples that have both.
    """

    positive: Tensor
    negative: Tensor
    anchors: Tensor


def draws_for(samples: Tensor) -> Tensor:
    """(n,2) random numbers in [0, 1) from torch's generator, for `draw_triplets` of n samples."""
    return torch.rand(len(samples), 2, dtype=torch.float32, device=samples.device)


def draw_triplets(targets: Tensor, draws: Tensor | None = None) -> Drawn:
    """Sample one triplet for every anchor, with a uniform distribution over its positives and its negatives.

    Args:
        targets: (n,) integer identities.
        draws: (n,2) random numbers in [0, 1) that select the positives and the negatives. Pass the same
            numbers in all processes to sample the same triplets. Default: `draws_for(targets)`.
    """
    if draws is None:
        draws = draws_for(targets)
    same = targets[:, None] == targets
    positive = same & ~torch.eye(targets.shape[0], dtype=torch.bool, device=targets.device)
    first, second = draws.unbind(1)
    return Drawn(_pick(positive, first), _pick(~same, second), positive.any(1) & ~same.all(1))


def _pick(mask: Tensor, draw: Tensor) -> Tensor:
    """For each row of an (n,n) mask, return the column of the True entry that `draw` in [0, 1) selects."""
    count = mask.sum(1)
    number = torch.minimum((draw * count).long(), (count - 1).clamp(min=0)) + 1
    return ((mask.cumsum(1) == number[:, None]) & mask).int().argmax(1)


def mean_hinge(margin: float, positive: Tensor, negative: Tensor, anchors: Tensor) -> Tensor:
    """Mean over the anchors of [ margin + positive - negative ]_+; zero without an anchor."""
    gap = torch.where(anchors, positive - negative, 0)
    return F.relu(margin + gap).masked_fill(~anchors, 0).sum() / anchors.sum().clamp(min=1)


class DrawnTripletLoss(nn.Module):
    """Triplet loss on one random triplet for every sample (STAL, first sum of Eq. 4).

        mean over anchors i of  [ m + d(i,j) - d(i,k) ]_+

    with j another sample of the anchor's identity and k a sample of a different identity, sampled at every
    call. The expected value equals that of one triplet whose anchor, positive and negative are sampled one
    after another. Anchors without a positive or without a negative are excluded; without any anchor the loss
    is zero.

    Args:
        margin: m >= 0.
        metric: "euclidean", "squared" or "cosine", as for `TripletLoss`.

    Call: `loss(inputs, targets, draws=None)` with inputs (n,D), integer targets (n,) and draws as for
    `draw_triplets` returns a float32 scalar (float64 for float64 inputs).

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(self, margin: float = 0.3, *, metric: str = "euclidean") -> None:
        super().__init__()
        self.margin = _checks.real("margin", margin, 0)
        self.metric = _checks.choice("metric", metric, _checks.METRICS)

    def forward(self, inputs: Tensor, targets: Tensor, draws: Tensor | None = None) -> Tensor:
        _checks.labelled_rows("inputs", inputs, "targets", targets, empty=False)
        if inputs.dtype != torch.float64:
            inputs = inputs.float()
        drawn = draw_triplets(targets, draws)
        positive, negative = (self._distance(inputs, inputs[index]) for index in drawn[:2])
        return mean_hinge(self.margin, positive, negative, drawn.anchors)

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        if self.metric == "cosine":
            return 1 - F.cosine_similarity(x, y, dim=1)
        difference = x - y
        return difference.square().sum(1) if self.metric == "squared" else difference.norm(dim=1)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, metric={self.metric!r}"
