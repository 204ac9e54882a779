"""STA: Spatial-Temporal Attention for Large-Scale Video-based Person Re-Identification
(Fu, Wang, Wei, Huang; AAAI 2019). Equation, algorithm and table numbers are the paper's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext.losses import InterFrameRegularizer
from vreid_ext.models.backbones import resolve_backbone
from vreid_ext.models.clips import frame_maps, in_evaluation
from vreid_ext.models.heads import bn_neck, classifier
from vreid_ext.models.output import TrainingOutput
from vreid_ext.models.registry import register_model
from vreid_ext.nn import ConsensusPool, ConsensusPooling, STAPooling
from vreid_ext.nn.frames import mean_over_frames
from vreid_ext.nn.gem import cell_pooling
from vreid_ext.ops import STAPool


@register_model("sta")
class STA(nn.Module):
    """The STA model. Its options reproduce every row of Table 1.

    | row of Table 1                      | pooling | fusion | regularizer | triplet loss |
    |-------------------------------------|---------|--------|-------------|--------------|
    | Baseline                            | "frame" |        |             | no           |
    | Baseline + TL                       | "frame" |        |             | yes          |
    | Baseline + TL + Avg                 | "avg"   |        |             | yes          |
    | Baseline + TL + STA                 | "sta"   | False  | False       | yes          |
    | Baseline + TL + STA + Fusion        | "sta"   | True   | False       | yes          |
    | Baseline + TL + STA + Fusion + Reg  | "sta"   | True   | True        | yes          |

    Pooling "consensus" is not from the paper: training as with "frame", evaluation with
    `nn.ConsensusPooling`. A model that was trained with "frame" can be evaluated with it.

    Args:
        num_classes: number of training identities.
        pooling: "frame", the image model: in training every frame is a sample, in evaluation the feature of
            a clip is the mean of the features of its frames; "avg", mean over frames and cells; "sta",
            spatial-temporal attention; "consensus", as "frame" in training, in evaluation the blocks of a
            clip are weighted by their agreement with the other frames.
        fusion: with "sta", concatenate the map of the highest scores and the weighted-sum map (Algorithm 1);
            if False, use the weighted-sum map only. Ignored for the other poolings.
        regularizer: with "sta", return the inter-frame term (Eq. 6) in training. Ignored for the other
            poolings.
        blocks: K, the number of row blocks; must divide the height of the map.
        cells: with "frame" and "avg", the pooling over the cells: "mean" or "gem" (`nn.GeMPooling`).
        sharpness: with "consensus", see `nn.ConsensusPooling`.
        neck: "fc", Linear without bias + BN + ReLU; its output is used for the triplet loss, the classifier
            and the evaluation (the paper states only FC; BN and ReLU are those of the public
            re-implementation AGRL.pytorch). "bn", the BNNeck of Luo et al. 2019: triplet loss before BN,
            classifier and evaluation after it.
        feature_dim: D for neck "fc"; default 1024 (the paper does not state it). Must be None for "bn",
            which keeps the size of the pooled vector.
        backbone: a name for `build_backbone`, or a module (N,3,h,w) -> (N,C,H,W) with an `out_channels`.
        weights, last_stride, input_size, backbone_options: passed to `build_backbone`; ignored if `backbone`
            is a module. A recipe fills in `input_size`.
        energy, normalize, backend: see `nn.STAPooling`.

    Call: `model(clips, valid=None)` with clips (B,T,3,h,w) and valid (B,T) bool, False for padding frames of
    short clips. Returns `TrainingOutput(logits, feature, extras)` in training and the feature (B,D) in
    evaluation. T may differ between calls. Padding frames affect neither the feature of a clip nor, in
    training, the batch statistics of the backbone. Poolings "frame" and "consensus" do not accept a mask in
    training.

    Attributes:
        feature_dim: D of the feature.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        pooling: str = "sta",
        fusion: bool = True,
        regularizer: bool = True,
        blocks: int = 4,
        cells: str = "mean",
        sharpness: float = 5.0,
        neck: str = "fc",
        feature_dim: int | None = None,
        backbone: str | nn.Module = "resnet50",
        weights: str | Path = "none",
        last_stride: int = 1,
        input_size: Sequence[int] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        energy: str = "sum_square",
        normalize: str = "sum",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes: expected an int of at least 1, got {num_classes!r}")
        if pooling not in ("frame", "avg", "sta", "consensus"):
            raise ValueError(f"pooling: expected 'frame', 'avg', 'sta' or 'consensus', got {pooling!r}")
        if cells != "mean" and pooling not in ("frame", "avg"):
            raise ValueError(f"cells: expected 'mean' with pooling {pooling!r}, got {cells!r}")
        if neck not in ("fc", "bn"):
            raise ValueError(f"neck: expected 'fc' or 'bn', got {neck!r}")
        if neck == "bn" and feature_dim is not None:
            raise ValueError(
                f"feature_dim: expected None with neck 'bn', which keeps the pooled size, got {feature_dim}"
            )
        if feature_dim is not None and (not isinstance(feature_dim, int) or feature_dim < 1):
            raise ValueError(f"feature_dim: expected an int of at least 1, got {feature_dim!r}")

        self.cells = cell_pooling(cells)
        self.sta = STAPooling(blocks, energy, normalize, backend)
        self.consensus = ConsensusPooling(blocks, sharpness)
        regularized = pooling == "sta" and regularizer
        self.inter_frame = InterFrameRegularizer(backend=backend) if regularized else None
        self.backbone, channels = resolve_backbone(
            backbone, weights, last_stride, input_size, backbone_options
        )

        self.pooling, self.fusion, self.neck = pooling, fusion, neck
        pooled_dim = 2 * channels if pooling == "sta" and fusion else channels
        self.feature_dim = pooled_dim if neck == "bn" else (feature_dim or 1024)
        self.fc = nn.Linear(pooled_dim, self.feature_dim, bias=False) if neck == "fc" else nn.Identity()
        if isinstance(self.fc, nn.Linear):
            nn.init.kaiming_normal_(self.fc.weight, mode="fan_out")
        self.bn = nn.BatchNorm1d(self.feature_dim) if neck == "fc" else bn_neck(self.feature_dim)
        self.classifier = classifier(self.feature_dim, num_classes, bias=neck == "fc")

    def forward(self, clips: Tensor, valid: Tensor | None = None) -> TrainingOutput | Tensor:
        by_frame = self.pooling == "frame" or (self.pooling == "consensus" and self.training)
        if self.training and by_frame and valid is not None:
            raise ValueError(f"valid: expected None, got a mask in training with pooling {self.pooling!r}")
        maps = self.maps(clips, valid)  # {f_n}
        extras = {}
        if by_frame:
            pooled = self.cells(maps).flatten(0, 1)
        elif self.pooling == "consensus":
            pooled = self._agreeing(maps, valid).pooled
        elif self.pooling == "avg":
            pooled = mean_over_frames(self.cells(maps), valid)
        else:
            fused, _, attention = self.sta(maps, valid)  # Eq. 1 to 4, Algorithm 1 and global average pooling
            pooled = fused if self.fusion else fused[:, maps.shape[2] :]
            if self.training and self.inter_frame is not None:
                extras["inter_frame"] = self.inter_frame(attention, valid)  # Eq. 6

        embedding = self.fc(pooled)
        normalised = self.bn(embedding)
        feature = normalised.relu() if self.neck == "fc" else normalised
        if self.training:
            metric_feature = feature if self.neck == "fc" else embedding
            return TrainingOutput(self.classifier(feature), metric_feature, extras, {}, feature)
        if by_frame:
            return mean_over_frames(feature.unflatten(0, clips.shape[:2]), valid)
        return feature

    def maps(self, clips: Tensor, valid: Tensor | None = None) -> Tensor:
        """Feature maps (B,T,C,H,W) of the frames. The backbone's memory format is kept."""
        return frame_maps(self.backbone, clips, valid)

    def _agreeing(self, maps: Tensor, valid: Tensor | None) -> ConsensusPool:
        pool: ConsensusPool = self.consensus(maps, valid, lambda blocks: self.bn(self.fc(blocks)))
        return pool

    @torch.no_grad()
    def attend(self, clips: Tensor, valid: Tensor | None = None) -> STAPool | ConsensusPool:
        """Scores of clips (B,T,3,h,w), computed in evaluation mode and without gradient.

        With pooling "consensus" a `ConsensusPool`. With any other pooling the scores and attention maps of
        STA, which have no parameters.
        """
        with in_evaluation(self):
            maps = self.maps(clips, valid)
            if self.pooling == "consensus":
                return self._agreeing(maps, valid)
            pool: STAPool = self.sta(maps, valid)
            return pool
