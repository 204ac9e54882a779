"""Generalized-mean pooling."""

import torch
from torch import Tensor, nn

from vreid_ext import _checks

_SMALLEST = 1e-6


class GeMPooling(nn.Module):
    """Generalized mean over the cells of maps, with a learned exponent.

        y[c] = ( 1/L sum_i max(x[c,i], 1e-6)^p )^(1/p)

    p = 1 is the mean of maps without negative values, p -> inf their maximum.

    Args:
        p: initial exponent, at least 1.
        learn: train p; otherwise it is a buffer.

    Call: `layer(x)` with maps x (...,C,H,W) in a floating-point dtype returns (...,C) in the same dtype.
    Powers are computed in float32 or wider. Negative values count as 1e-6, so the layer is for maps after a
    ReLU, not for the tokens of a ViT.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    Source: Radenovic, Tolias, Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019,
    Eq. 2, with one exponent for all channels as in their code and in fast-reid.
    """

    def __init__(self, p: float = 3.0, learn: bool = True) -> None:
        super().__init__()
        value = torch.tensor([_checks.real("p", p, 1)], dtype=torch.get_default_dtype())
        self.p: Tensor
        if learn:
            self.p = nn.Parameter(value)
        else:
            self.register_buffer("p", value)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 3 or not x.is_floating_point():
            raise ValueError(f"x: expected floating-point (...,C,H,W), got {x.dtype} {tuple(x.shape)}")
        wide = x.to(torch.promote_types(x.dtype, torch.float32)).clamp(min=_SMALLEST)
        p = self.p.to(wide.dtype)
        return wide.pow(p).mean((-2, -1)).pow(1 / p).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p.item():.4g}"


class MeanPooling(nn.Module):
    """Mean over the cells of maps (...,C,H,W): (...,C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1))


def cell_pooling(name: str) -> nn.Module:
    """The pooling over cells with this name: "mean" or "gem"."""
    _checks.choice("cells", name, ("mean", "gem"))
    return GeMPooling() if name == "gem" else MeanPooling()
