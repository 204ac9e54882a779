"""What makes the frame baseline better than the average baseline: a model that mixes the two.

Both train the same network on the same clips. In the frame baseline every frame is a sample of the
cross-entropy and of the triplet loss; in the average baseline the mean of a clip is. `FrameOrClip` chooses
for each loss. Importing this module registers the model, so that recipes/frame_or_clip.yaml can name it.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from vreid_ext.losses import TripletLoss
from vreid_ext.models import TrainingOutput, register_model
from vreid_ext.models.backbones import resolve_backbone
from vreid_ext.models.clips import frame_maps, training_label, unmasked
from vreid_ext.models.heads import bn_neck, classifier
from vreid_ext.nn.frames import mean_over_frames


@register_model("frame_or_clip")
class FrameOrClip(nn.Module):
    """Average pooling with a BN neck, trained with samples of two kinds.

    Args:
        num_classes: number of training identities.
        classified: samples of the cross-entropy loss: every "frame", or the mean of a "clip".
        mined: samples of the triplet loss: every "frame"; the mean of a "clip"; or "slot": every frame, but
            compared only with the frames at the same position of the other clips. With "slot" each triplet is
            chosen from as few samples as with "clip".
        margin: of the triplet loss.
        backbone, weights: see `models.build_backbone`.

    Call: `model(clips, valid=None, label=None)` as for `models.PartConsensus`. `extras` has the triplet loss
    as "part_triplet".
    """

    takes = ("label",)

    def __init__(
        self,
        num_classes: int,
        *,
        classified: str = "frame",
        mined: str = "frame",
        margin: float = 0.3,
        backbone: str | nn.Module = "resnet50",
        weights: str | Path = "none",
    ) -> None:
        super().__init__()
        if classified not in ("frame", "clip"):
            raise ValueError(f"classified: expected 'frame' or 'clip', got {classified!r}")
        if mined not in ("frame", "clip", "slot"):
            raise ValueError(f"mined: expected 'frame', 'clip' or 'slot', got {mined!r}")
        self.classified, self.mined = classified, mined
        self.backbone, self.feature_dim = resolve_backbone(backbone, weights, last_stride=1)
        self.bn = bn_neck(self.feature_dim)
        self.classifier = classifier(self.feature_dim, num_classes)
        self.triplet = TripletLoss(margin)

    def forward(
        self, clips: Tensor, valid: Tensor | None = None, label: Tensor | None = None
    ) -> TrainingOutput | Tensor:
        if self.training:
            unmasked(valid)
            label = training_label(label)
        frames = frame_maps(self.backbone, clips, valid).mean((3, 4))
        clip = mean_over_frames(frames, valid)
        if label is None or not self.training:
            feature: Tensor = self.bn(clip)
            return feature
        samples = frames.flatten(0, 1) if self.classified == "frame" else clip
        return TrainingOutput(
            self.classifier(self.bn(samples)), samples, {"part_triplet": self._mine(frames, clip, label)}
        )

    def _mine(self, frames: Tensor, clip: Tensor, label: Tensor) -> Tensor:
        if self.mined == "clip":
            return self.triplet(clip, label)
        if self.mined == "frame":
            return self.triplet(frames.flatten(0, 1), label.repeat_interleave(frames.shape[1]))
        return torch.stack([self.triplet(slot, label) for slot in frames.unbind(1)]).mean()
