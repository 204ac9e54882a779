"""Batch-hard triplet loss on the weighted part metric."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import ops
from vreid_ext.losses import _checks
from vreid_ext.ops._checks import floating


class PartTripletLoss(nn.Module):
    """Triplet loss with psi as the distance (STAL, second sum of Eq. 4).

        mean over anchors i of  [ m + max_j psi(i,j) - min_k psi(i,k) ]_+

    with j the other clips of the anchor's identity and k those of different ones. The paper takes the
    triplets that it draws; in a batch of identities these are the hardest, as `TripletLoss` takes them. An
    anchor without a positive or without a negative is left out of the mean; if all are, the loss is zero.

    Args:
        margin: m >= 0; 0.8 in the paper.
        backend: for `ops.part_distance`.

    Call: `loss(features, scores, targets)` with part features (n,R,D), part scores (n,R) and integer
    identities (n,); returns a float32 scalar (float64 for float64 features).

    Raises:
        TypeError, ValueError: naming the argument, what was got and what is wanted.
    """

    def __init__(self, margin: float = 0.8, backend: str = "auto") -> None:
        super().__init__()
        self.margin, self.backend = _checks.real("margin", margin, 0), backend

    def forward(self, features: Tensor, scores: Tensor, targets: Tensor) -> Tensor:
        _checks.batch("scores", scores, targets)
        floating("features", features, "(n,R,D)")
        if features.shape[:2] != scores.shape:
            raise ValueError(
                f"features: expected (n,R,D) with (n,R) = {tuple(scores.shape)} as scores, "
                f"got shape {tuple(features.shape)}"
            )
        distance = ops.part_distance(features, scores, features, scores, backend=self.backend)
        same = targets[:, None] == targets
        positive = same & ~torch.eye(targets.shape[0], dtype=torch.bool, device=targets.device)
        farthest = distance.masked_fill(~positive, -torch.inf).amax(1)
        nearest = distance.masked_fill(same, torch.inf).amin(1)
        anchors = positive.any(1) & ~same.all(1)
        gap = torch.where(anchors, farthest - nearest, 0)
        return F.relu(self.margin + gap).masked_fill(~anchors, 0).sum() / anchors.sum().clamp(min=1)

    def extra_repr(self) -> str:
        return f"margin={self.margin}"
