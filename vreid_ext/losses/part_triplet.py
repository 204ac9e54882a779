"""Triplet loss on the weighted part metric."""

import torch
from torch import Tensor, nn

from vreid_ext import _checks, ops
from vreid_ext.losses.drawn import draw_triplets, mean_hinge


class PartTripletLoss(nn.Module):
    """Triplet loss with psi as the distance (STAL, second sum of Eq. 4).

        mean over anchors i of  [ m + max_j psi(i,j) - min_k psi(i,k) ]_+

    with j the other clips of the anchor's identity and k the clips of different identities. These are the
    hardest pairs of the batch, as in `TripletLoss`; the paper samples one triplet for every anchor instead
    ("drawn"). Anchors without a positive or without a negative are excluded; without any anchor the loss is
    zero.

    Args:
        margin: m >= 0; 0.8 in the paper.
        mining: "hardest" or "drawn" (`losses.drawn.draw_triplets`).
        backend: backend of `ops.part_distance`.

    Call: `loss(features, scores, targets, draws=None)` with part features (n,R,D), part scores (n,R), integer
    identities (n,) and, for "drawn", optional random numbers as for `draw_triplets` returns a float32 scalar
    (float64 for float64 features).

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(self, margin: float = 0.8, backend: str = "auto", mining: str = "hardest") -> None:
        super().__init__()
        _checks.choice("mining", mining, ("hardest", "drawn"))
        self.margin, self.backend, self.mining = _checks.real("margin", margin, 0), backend, mining

    def forward(
        self, features: Tensor, scores: Tensor, targets: Tensor, draws: Tensor | None = None
    ) -> Tensor:
        _checks.labelled_rows("scores", scores, "targets", targets, empty=False)
        _checks.floating("features", features, "(n,R,D)")
        if features.shape[:2] != scores.shape:
            raise ValueError(
                f"features: expected shape (n,R,D) with (n,R) = {tuple(scores.shape)} of scores, "
                f"got {tuple(features.shape)}"
            )
        distance = ops.part_distance(features, scores, features, scores, backend=self.backend)
        if self.mining == "drawn":
            positive, negative, anchors = draw_triplets(targets, draws)
            near, far = (distance.gather(1, index[:, None])[:, 0] for index in (positive, negative))
            return mean_hinge(self.margin, near, far, anchors)
        same = targets[:, None] == targets
        others = same & ~torch.eye(targets.shape[0], dtype=torch.bool, device=targets.device)
        farthest = distance.masked_fill(~others, -torch.inf).amax(1)
        nearest = distance.masked_fill(same, torch.inf).amin(1)
        return mean_hinge(self.margin, farthest, nearest, others.any(1) & ~same.all(1))

    def extra_repr(self) -> str:
        return f"margin={self.margin}, mining={self.mining!r}"
