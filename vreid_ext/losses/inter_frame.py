"""Inter-frame regularization of attention maps."""

from torch import Tensor, nn

from vreid_ext import _checks, ops


class InterFrameRegularizer(nn.Module):
    """Mean over clips of the distance between two frames' attention maps, ||g_i - g_j||_F (STA, Eq. 6).

    It prevents the attention from concentrating on one frame. The paper does not state its weight (Eq. 7);
    multiply the result by your own.

    Args:
        pairs: "random", two different frames sampled for every clip at every call (the paper), or "all", the
            mean over all pairs.
        backend: "auto", "reference", "native", "triton" or "cuda".

    Call: `loss(attention, valid=None)` with attention (B,T,H,W), e.g. `STAPool.attention`, and valid (B,T)
    bool returns a float32 scalar (float64 for float64 input). Clips with an invalid frame are excluded from
    the mean. The loss is zero for an empty batch and for clips of one frame.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(self, pairs: str = "random", backend: str = "auto") -> None:
        super().__init__()
        _checks.choice("pairs", pairs, ("random", "all"))
        self.pairs, self.backend = pairs, backend

    def forward(self, attention: Tensor, valid: Tensor | None = None) -> Tensor:
        distance = ops.inter_frame_distance(attention, self.pairs, backend=self.backend)
        if valid is None:
            return distance.sum() / max(distance.shape[0], 1)
        _checks.mask("valid", valid, tuple(attention.shape[:2]), attention.device)
        whole = valid.all(1)
        return distance.masked_fill(~whole, 0).sum() / whole.sum().clamp(min=1)

    def extra_repr(self) -> str:
        return f"pairs={self.pairs!r}"
