"""Spatial-temporal attention pooling as a layer."""

from torch import Tensor, nn

from vreid_ext import _checks, ops
from vreid_ext.ops import STAPool


class STAPooling(nn.Module):
    """Parameter-free pooling of a clip's feature maps into one vector (STA, Eq. 1 to 4 and Algorithm 1).

    The score of a row block in a frame is its fraction of the frame's energy, normalized over the frames. The
    clip's vector consists of two spatial means: of the map with the highest-scored block of all frames, and
    of the score-weighted sum over the frames. With the default `energy` and `normalize` this is
    `ops.sta_pool`, one read of the maps. The layer has no parameters and no state, so T may differ between
    calls.

    Args:
        blocks: K, a divisor of the map's height.
        energy: "sum_square" (Eq. 1) or "l2", the channel norm.
        normalize: "sum" (Eq. 1) or "l2".
        backend: "auto", "reference", "native", "triton" or "cuda".

    Call: `layer(x, valid=None)` with x (B,T,C,H,W) floating-point and valid (B,T) bool, False for frames to
    exclude, returns `STAPool(pooled (B,2C), scores (B,T,K), attention (B,T,H,W))`: pooled in the dtype of x,
    the others in float32 or wider.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    Source: Fu et al., "STA: Spatial-Temporal Attention for Large-Scale Video-based Person
    Re-Identification", AAAI 2019.
    """

    def __init__(
        self, blocks: int = 4, energy: str = "sum_square", normalize: str = "sum", backend: str = "auto"
    ) -> None:
        super().__init__()
        _checks.integer("blocks", blocks, 1)
        _checks.choice("energy", energy, ("sum_square", "l2"))
        _checks.choice("normalize", normalize, ("sum", "l2"))
        self.blocks, self.energy, self.normalize, self.backend = blocks, energy, normalize, backend

    def forward(self, x: Tensor, valid: Tensor | None = None) -> STAPool:
        if (self.energy, self.normalize) == ("sum_square", "sum"):
            return ops.sta_pool(x, self.blocks, valid, backend=self.backend)
        if valid is not None:  # attention_map has no mask, and excluded frames may contain NaN
            x = x.masked_fill(~valid[:, :, None, None, None], 0)
        attention = ops.attention_map(x, self.energy, self.normalize, backend=self.backend)
        if valid is not None:
            attention = attention.masked_fill(~valid[:, :, None, None], 0)
        scores = ops.block_scores(attention, self.blocks, valid, backend=self.backend)
        pooled = ops.fuse(x, scores, valid, backend=self.backend).mean((2, 3))
        return STAPool(pooled, scores, attention)

    def extra_repr(self) -> str:
        return f"blocks={self.blocks}, energy={self.energy!r}, normalize={self.normalize!r}"
