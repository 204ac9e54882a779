"""Diversity regularization of spatial attentions."""

from torch import Tensor, nn

from vreid_ext import _checks, ops
from vreid_ext.ops import RegionPool


class HellingerDiversity(nn.Module):
    """Overlap of K receptive fields over the frames of a batch (DRSTA, Eq. 9 or 10).

        "hellinger"   Q  = ||R R^T - I||_F^2,  R = sqrt(S)
        "text"        Q' = ||S S^T - I||_F^2, the paper's ablation: also concentrates each field on one cell

    The paper adds the overlap of each image to the loss, with a weight that it does not state. The mean over
    the N frames makes the term independent of the batch size. The released code adds the square root of the
    sum over the batch, with weight 1:

        "mean"   1/N sum_n Q_n
        "root"   sqrt(sum_n Q_n + 1e-5); its gradient is sqrt(N / (4 mean Q)) times that of the mean

    Args:
        form: see above.
        backend: backend of the op.
        reduction: "mean" or "root".

    Call: `loss(attention, valid=None)` with the `RegionPool` of `ops.region_pool` or other weights (B,T,K,L),
    and valid (B,T) bool, the frames to include. Returns a float32 scalar (float64 for float64 weights), which
    is zero for K = 1 and without a valid frame.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(self, form: str = "hellinger", backend: str = "auto", reduction: str = "mean") -> None:
        super().__init__()
        _checks.choice("form", form, ("hellinger", "text"))
        _checks.choice("reduction", reduction, ("mean", "root"))
        self.form, self.backend, self.reduction = form, backend, reduction

    def forward(self, attention: RegionPool | Tensor, valid: Tensor | None = None) -> Tensor:
        weights = attention.weights if isinstance(attention, RegionPool) else attention
        _checks.floating("attention", weights, "(B,T,K,L)")
        _checks.mask("valid", valid, tuple(weights.shape[:2]), weights.device)
        if weights.shape[2:3] == (1,):
            return weights.sum() * 0
        if isinstance(attention, RegionPool) and self.form == "hellinger":
            # Its gradient goes directly to the logits and stays finite if a weight underflows.
            overlap = attention.overlap
        else:
            overlap = ops.hellinger_overlap(weights, self.form, backend=self.backend)
        if valid is None:
            return self._reduced(overlap.sum(), max(overlap.numel(), 1))
        return self._reduced(overlap.masked_fill(~valid, 0).sum(), valid.sum().clamp(min=1))

    def _reduced(self, total: Tensor, count: int | Tensor) -> Tensor:
        return (total + 1e-5).sqrt() if self.reduction == "root" else total / count

    def extra_repr(self) -> str:
        return f"form={self.form!r}, reduction={self.reduction!r}"
