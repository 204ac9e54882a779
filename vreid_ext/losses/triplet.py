"""Batch-hard triplet loss."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext.losses import _checks


class TripletLoss(nn.Module):
    """Triplet loss on the hardest pairs of the batch (Hermans et al., 2017; STA, Eq. 9).

        mean over anchors a of  [ m + max_p ||x_a - x_p|| - min_n ||x_a - x_n|| ]_+

    with p the other samples of the anchor's identity and n those of different ones; Euclidean distances.
    An anchor without a positive or without a negative is left out of the mean; if all are, the loss is zero.
    (Eq. 9 sums over the batch; the mean makes the loss independent of the batch size, as everywhere in the
    field.)

    Args:
        margin: m >= 0, or "soft" for ln(1 + exp(.)) in place of [m + .]_+.

    Call: `loss(inputs, targets)` with inputs (n,D) floating and targets (n,) integer identities; returns a
    float32 scalar (float64 for float64 inputs). The pairs are chosen by distances in float64 and their own
    distances are norms of differences, so near-equal samples keep their precision. Equal samples have
    distance zero and gradient zero. Among equally hard samples one takes the gradient. Memory O(n^2 + n D).

    Raises:
        TypeError, ValueError: naming the argument, what was got and what is wanted.
    """

    def __init__(self, margin: float | Literal["soft"] = 0.3) -> None:
        super().__init__()
        if isinstance(margin, bool) or not (isinstance(margin, (int, float)) or margin == "soft"):
            raise TypeError(f"margin: got {margin!r}, wanted a number or 'soft'")
        if margin != "soft" and not 0 <= margin < float("inf"):
            raise ValueError(f"margin: got {margin}, wanted a finite number >= 0 or 'soft'")
        self.margin = margin

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        _checks.batch("inputs", inputs, targets)
        x = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        same = targets[:, None] == targets
        positive = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        with torch.no_grad():  # only the chosen pairs carry gradient
            distance = _squared_distances(x)
            hardest_positive = distance.masked_fill(~positive, -torch.inf).argmax(1)
            hardest_negative = distance.masked_fill(same, torch.inf).argmin(1)
        gap = _norm(x - x[hardest_positive]) - _norm(x - x[hardest_negative])
        loss = F.softplus(gap) if self.margin == "soft" else F.relu(self.margin + gap)
        anchors = positive.any(1) & ~same.all(1)
        return loss.masked_fill(~anchors, 0).sum() / anchors.sum().clamp(min=1)

    def extra_repr(self) -> str:
        return f"margin={self.margin!r}"


def _squared_distances(x: Tensor) -> Tensor:
    """(n,n), float64: centred, so that the expanded square loses nothing a float32 distance could show."""
    x = x.double()
    x = x - x.mean(0)
    square = x.square().sum(1)
    return square[:, None] + square - 2 * x @ x.T


def _norm(x: Tensor) -> Tensor:
    """Row norms; torch gives the norm of a zero row the gradient zero."""
    return torch.linalg.vector_norm(x, dim=1)
