"""DRSTA: Diversity Regularized Spatiotemporal Attention for Video-based Person Re-identification
(Li, Bak, Carr, Wang; CVPR 2018). Equation, section and table numbers are the paper's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import ops
from vreid_ext.losses import HellingerDiversity
from vreid_ext.models.backbones import resolve_backbone
from vreid_ext.models.clips import frame_maps, in_evaluation
from vreid_ext.models.heads import bn_neck
from vreid_ext.models.output import TrainingOutput
from vreid_ext.models.registry import register_model
from vreid_ext.nn import RegionAttention
from vreid_ext.nn.gem import cell_pooling
from vreid_ext.ops import RegionPool


class ReceptiveFields(NamedTuple):
    """Result of `DRSTA.attend`.

    Attributes:
        weights: (B,T,K,H,W), s_{n,k} of Eq. 2; they sum to one over the cells.
        overlap: (B,T), Q of Eq. 9.
    """

    weights: Tensor
    overlap: Tensor


@register_model("drsta")
class DRSTA(nn.Module):
    """The DRSTA model. Its options reproduce every row of Tables 1 and 2.

    | row of Table 1                | spatial | diversity   | temporal    |
    |-------------------------------|---------|-------------|-------------|
    | Baseline                      | False   |             | "mean"      |
    | SpaAtn                        | True    | "none"      | "mean"      |
    | SpaAtn + Q'                   | True    | "text"      | "mean"      |
    | SpaAtn + Q                    | True    | "hellinger" | "mean"      |
    | SpaAtn + Q + MaxPool          | True    | "hellinger" | "max"       |
    | SpaAtn + Q + TemAtn (+ Ind)   | True    | "hellinger" | "attention" |

    "Ind" is fine-tuning on a single data set; the recipe sets it. Table 2 varies `regions`.

    Args:
        num_classes: number of training identities.
        spatial: use K spatial attentions (Eq. 1 to 3); if False, one region, pooled over the cells.
        cells: without spatial attention, the pooling over the cells: "mean" or "gem" (`nn.GeMPooling`).
        diversity: the diversity term that is returned in training: "hellinger" (Eq. 9), "text" (Eq. 10) or
            "none".
        temporal: pooling over the frames, separately for each region: "mean", "max" or "attention" (Eq. 11
            to 13). The weights of the attention are initialized to zero, so it starts as the mean.
        enhance: E of Eq. 4. According to the paper, E follows second-order pooling (Carreira et al., ECCV
            2012), pools over the frames and keeps the size D; the paper refers to its supplement for details.
            "second_order" is our interpretation: E(x_n) = G x_n / tr G with G = 1/N sum_n x_n x_n^T, the
            second-order average of the features of a region over the frames. Components common to all frames
            are kept and other components are reduced; identical frames are not changed. "none" omits E, as
            the released code does.
        regions: K.
        form: "paper", or "released" for the published part of the authors' code, which consists of the
            attention of `nn.RegionAttention` (there with 64 hidden channels and K = 3); a linear layer to
            `feature_dim` dimensions, shared by the regions, and L2 normalization of each region in each frame
            before the frames are pooled; and as diversity term the square root of the summed overlaps of the
            batch, with weight 1. The code after that point is not published: here the pooled regions are
            concatenated and normalized, which gives K x `feature_dim` dimensions. This form has no E, so
            enhance must be "none".
        neck: layer between the linear layer and the L2 normalization of the feature: "none", as in the
            paper, or "bn", batch normalization with a bias fixed at 0. The code on which the authors' trainer
            is based (open-reid) has batch normalization with a learned bias there. Features of pooled ReLU
            maps have similar directions. Unless their mean is subtracted, the OIM loss may converge to one
            feature for all persons; a learned bias can add this mean again.
        hidden: d of Eq. 1; default 256 with form "paper" and 64 with "released".
        feature_dim: D of the L2-normalized feature; with form "released", the size of each region.
        backbone: a name for `build_backbone`, or a module (N,3,h,w) -> (N,C,H,W) with an `out_channels`.
        weights, last_stride, input_size, backbone_options: passed to `build_backbone`; ignored if `backbone`
            is a module. The paper has 8 x 4 maps for 256 x 128 images, which is stride 2. A recipe fills in
            `input_size`.
        backend: backend of the ops.

    Call: `model(clips, valid=None)` with clips (B,T,3,h,w) and valid (B,T) bool, False for padding frames of
    short clips. In training it returns `TrainingOutput(logits, feature, extras)`: the normalized feature for
    the OIM loss, and the logits of a linear classifier on it for training with a softmax loss. In evaluation
    it returns the feature (B,D). T may differ between calls.

    Attributes:
        feature_dim: D of the feature.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        spatial: bool = True,
        cells: str = "mean",
        diversity: str = "hellinger",
        temporal: str = "attention",
        enhance: str = "second_order",
        regions: int = 6,
        hidden: int | None = None,
        form: str = "paper",
        neck: str = "none",
        feature_dim: int = 128,
        backbone: str | nn.Module = "resnet50",
        weights: str | Path = "none",
        last_stride: int = 2,
        input_size: Sequence[int] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("feature_dim", feature_dim)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected an int of at least 1, got {value!r}")
        choices = {
            "diversity": (diversity, ("hellinger", "text", "none")),
            "temporal": (temporal, ("mean", "max", "attention")),
            "enhance": (enhance, ("second_order", "none")),
            "form": (form, ("paper", "released")),
            "neck": (neck, ("none", "bn")),
        }
        for name, (choice, allowed) in choices.items():
            if choice not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {choice!r}")
        released = form == "released"
        if spatial and cells != "mean":
            raise ValueError(f"cells: expected 'mean' with spatial attention, got {cells!r}")
        if released and not spatial:
            raise ValueError("spatial: expected true with form 'released', got false")
        if released and enhance != "none":
            raise ValueError(f"enhance: expected 'none' with form 'released', got {enhance!r}")
        if released and neck != "none":
            raise ValueError(f"neck: expected 'none' with form 'released', got {neck!r}")
        self.backbone, channels = resolve_backbone(
            backbone, weights, last_stride, input_size, backbone_options
        )
        self.pooling, self.enhance, self.backend = temporal, enhance, backend
        self.regions = regions if spatial else 1
        hidden = hidden or (64 if released else 256)
        self.spatial = RegionAttention(channels, regions, hidden, form, backend) if spatial else None
        regularized = spatial and diversity != "none"
        reduction = "root" if released else "mean"
        self.cells = cell_pooling(cells)
        self.diversity = HellingerDiversity(diversity, backend, reduction) if regularized else None
        self.released = released
        pooled = feature_dim if released else channels  # size of a region when the frames are pooled
        # w_{t,k} of Eq. 11. b_{t,k} is omitted: it shifts all frames equally and cancels in the softmax.
        self.temporal = nn.Parameter(torch.zeros(self.regions, pooled)) if temporal == "attention" else None
        self.feature_dim = self.regions * feature_dim if released else feature_dim
        self.fc = nn.Linear(channels if released else self.regions * channels, feature_dim)
        self.bn = bn_neck(self.feature_dim) if neck == "bn" else nn.Identity()
        self.classifier = nn.Linear(self.feature_dim, num_classes)

    def forward(self, clips: Tensor, valid: Tensor | None = None) -> TrainingOutput | Tensor:
        maps = frame_maps(self.backbone, clips, valid)  # {f_{n,l}}
        extras = {}
        if self.spatial is None:
            parts = self.cells(maps)[:, :, None]
        else:
            pool = self.spatial(maps, valid)  # Eq. 1 to 3
            parts = pool.features
            if self.training and self.diversity is not None:
                extras["diversity"] = self.diversity(pool, valid)  # Eq. 9 or 10
            if self.enhance == "second_order":
                parts = second_order(parts, valid)  # Eq. 4
        if self.released:
            parts = F.normalize(self.fc(parts), dim=3)
        pooled = self._over_time(parts, valid).flatten(1)  # Eq. 15
        feature = F.normalize(pooled if self.released else self.bn(self.fc(pooled)))
        if self.training:
            return TrainingOutput(self.classifier(feature), feature, extras)
        return feature

    def _over_time(self, parts: Tensor, valid: Tensor | None) -> Tensor:
        """Pool (B,T,K,D) to (B,K,D)."""
        if self.pooling == "max":
            if valid is not None:
                parts = parts.masked_fill(~valid[:, :, None, None], -torch.inf)
            return parts.amax(1)
        scores = parts.new_zeros(parts.shape[:3])
        if self.temporal is not None:
            scores = (parts * self.temporal.to(parts.dtype)).sum(3)  # Eq. 11
        return ops.temporal_pool(scores, parts, valid, backend=self.backend)  # Eq. 12 and 13

    @torch.no_grad()
    def attend(self, clips: Tensor, valid: Tensor | None = None) -> ReceptiveFields | None:
        """Receptive fields of clips (B,T,3,h,w), computed in evaluation mode and without gradient.

        Returns None if the model has no spatial attention.
        """
        if self.spatial is None:
            return None
        with in_evaluation(self):
            maps = frame_maps(self.backbone, clips, valid)
            pool: RegionPool = self.spatial(maps)
            return ReceptiveFields(pool.weights.unflatten(3, maps.shape[3:]), pool.overlap)


def second_order(parts: Tensor, valid: Tensor | None = None) -> Tensor:
    """G x_n / tr G of each region, with G = 1/N sum_n x_n x_n^T over the N frames of the clip.

    The D x D matrix G is never formed: G x_n = 1/N sum_m <x_m, x_n> x_m.

    Args:
        parts: (B,T,K,D).
        valid: (B,T) bool, False for frames to ignore; their result is zero. None: use all frames.

    Returns:
        (B,T,K,D), zero where all frames are zero.
    """
    if valid is not None:
        parts = parts.masked_fill(~valid[:, :, None, None], 0)
    x = parts.transpose(1, 2)  # (B,K,T,D)
    products = x @ x.transpose(-2, -1)
    trace = products.diagonal(dim1=2, dim2=3).sum(2)
    return ((products / trace.clamp(min=torch.finfo(x.dtype).tiny)[..., None, None]) @ x).transpose(1, 2)
