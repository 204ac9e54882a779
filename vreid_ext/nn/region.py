"""K learned spatial attentions as a layer."""

from torch import Tensor, nn

from vreid_ext import _checks, ops
from vreid_ext.nn.frames import each_frame
from vreid_ext.ops import RegionPool


class RegionAttention(nn.Module):
    """Multiple spatial attentions (DRSTA, Eq. 1 to 3) and their overlap (Eq. 9).

        "paper"      e_k = w'_k . ReLU(W_k f + b_k): two separate linear maps for every region. (b'_k of Eq. 1
                     is omitted: it adds a constant to all cells of a region, so the softmax cancels it.)
        "released"   the authors' code: 1x1 convolution to `hidden` channels shared by the regions, BN, ReLU,
                     1x1 convolution to K, BN. There hidden = 64 and K = 3.

    The K softmaxes, the weighted sums and the overlap are computed by `ops.region_pool`.

    Args:
        channels: C of the maps.
        regions: K.
        hidden: d of Eq. 1; 256 in the paper.
        form: see above.
        backend: backend of the op.

    Call: `attention(x, valid=None)` with x (B,T,C,H,W) and valid (B,T) bool, the frames to include in batch
    statistics, returns `RegionPool(features (B,T,K,C), weights (B,T,K,L), overlap (B,T))`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(
        self, channels: int, regions: int = 6, hidden: int = 256, form: str = "paper", backend: str = "auto"
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("regions", regions), ("hidden", hidden)):
            _checks.integer(name, value, 1)
        _checks.choice("form", form, ("paper", "released"))
        self.channels, self.regions, self.form, self.backend = channels, regions, form, backend
        if form == "paper":
            self.response = nn.Sequential(
                nn.Conv2d(channels, regions * hidden, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(regions * hidden, regions, 1, groups=regions, bias=False),
            )
        else:
            self.response = nn.Sequential(
                nn.Conv2d(channels, hidden, 1),
                nn.BatchNorm2d(hidden),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, regions, 1),
                nn.BatchNorm2d(regions),
            )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> RegionPool:
        _checks.floating("x", x, "(B,T,C,H,W)")
        _checks.mask("valid", valid, tuple(x.shape[:2]), x.device)
        if x.shape[2] != self.channels:
            raise ValueError(f"x: expected shape (B,T,C,H,W) with C = {self.channels}, got {tuple(x.shape)}")
        logits = each_frame(self.response, x, valid).flatten(3)
        return ops.region_pool(logits, x, backend=self.backend)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, regions={self.regions}, form={self.form!r}"
