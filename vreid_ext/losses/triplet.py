"""Batch-hard triplet loss."""

from typing import Literal

from torch import Tensor, nn

from vreid_ext import _checks, ops


class TripletLoss(nn.Module):
    """Triplet loss on the hardest pairs of the batch (Hermans et al., 2017; STA, Eq. 9).

        mean over anchors a of  [ m + max_p d(x_a, x_p) - min_n d(x_a, x_n) ]_+

    with p the other samples of the anchor's identity and n the samples of different identities. Anchors
    without a positive or without a negative are excluded; without any anchor the loss is zero. (Eq. 9 sums
    over the batch; the mean makes the loss independent of the batch size, as is common.)

    Args:
        margin: m >= 0, or "soft" for ln(1 + exp(.)) instead of [m + .]_+.
        metric: "euclidean", "squared" or "cosine"; see `ops.batch_hard`.
        backend: "auto", "reference", "native", "triton" or "cuda".

    Call: `loss(inputs, targets)` with floating-point inputs (n,D) and integer identities targets (n,), or
    `loss(inputs, targets, ref, ref_targets)` to select positives and negatives from ref (m,D). Returns a
    float32 scalar (float64 for float64 inputs). The kernels need O((n + m) D) memory and no distance
    matrix. Equal samples have distance zero and gradient zero. Among equally hard samples only one receives
    the gradient.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value. On a CPU, this includes a row of
            inputs that is not finite.
    """

    def __init__(
        self, margin: float | Literal["soft"] = 0.3, *, metric: str = "euclidean", backend: str = "auto"
    ) -> None:
        super().__init__()
        self.margin = _checks.margin(margin)
        self.metric, self.backend = _checks.choice("metric", metric, _checks.METRICS), backend

    def forward(
        self, inputs: Tensor, targets: Tensor, ref: Tensor | None = None, ref_targets: Tensor | None = None
    ) -> Tensor:
        _checks.labelled_rows("inputs", inputs, "targets", targets, empty=False)
        return ops.batch_hard_triplet(
            inputs, targets, margin=self.margin, metric=self.metric, ref=ref, ref_labels=ref_targets,
            backend=self.backend,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"margin={self.margin!r}, metric={self.metric!r}"
