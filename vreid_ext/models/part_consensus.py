"""Body parts and their agreement over the frames of a clip. Not from one paper; see `PartConsensus`."""

from pathlib import Path

import torch
from torch import Tensor, nn

from vreid_ext import _checks
from vreid_ext.losses import CrossEntropyLoss
from vreid_ext.models.backbones import resolve_backbone
from vreid_ext.models.clips import frame_maps, in_evaluation, training_label, unmasked
from vreid_ext.models.heads import bn_neck, classifier
from vreid_ext.models.output import TrainingOutput
from vreid_ext.models.registry import register_model
from vreid_ext.nn import ConsensusPool, ConsensusPooling
from vreid_ext.nn.consensus import block_means, weighted


@register_model("part_consensus")
class PartConsensus(nn.Module):
    """A feature of the whole person and one of each horizontal part, pooled over the frames by consensus.

    The map of a frame is divided into K row blocks. With b[t,k] the mean of block k of frame t, the features
    of a frame are

        g[t]   = BN(1/K sum over k of b[t,k])          whole person
        p[t,k] = BN_k(W_k b[t,k])                      part k

    In training every frame is a sample: g has a cross-entropy and a triplet loss (before BN, as in BNNeck),
    each p[k] has a classifier and a cross-entropy loss of its own. In evaluation the blocks are pooled over
    the frames with the weights of `nn.ConsensusPooling`, and the feature of a clip is the concatenation of
    g / |g| and (p[1], ..., p[K]) / |(p[1], ..., p[K])|.

    Args:
        num_classes: number of training identities.
        parts: K; must divide the height of the map.
        part_dim: size of p[t,k].
        sharpness: of the consensus in evaluation; 0 is average pooling.
        backbone: a name for `build_backbone`, or a module (N,3,h,w) -> (N,C,H,W) with an `out_channels`.
        weights, last_stride: passed to `build_backbone`; ignored if `backbone` is a module.

    Call: `model(clips, valid=None, label=None)` with clips (B,T,3,h,w), valid (B,T) bool, False for padding
    frames (in evaluation only), and label (B,) integer, required in training. Returns
    `TrainingOutput(logits, feature, extras)` with B*T rows in training; `extras` has "part_softmax", the sum
    over the parts of their cross-entropy losses. Returns the feature (B,D) in evaluation.

    Attributes:
        feature_dim: D = C + K * part_dim.
        takes: keys of a `ClipDataset` batch that are passed to the model as keyword arguments.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    Sources: the parts and their classifiers are those of PCB (Sun et al., ECCV 2018), the feature of the
    whole person next to them is that of MGN (Wang et al., ACM MM 2018). docs/accuracy.md has the figures.
    """

    takes = ("label",)

    def __init__(
        self,
        num_classes: int,
        *,
        parts: int = 4,
        part_dim: int = 256,
        sharpness: float = 5.0,
        backbone: str | nn.Module = "resnet50",
        weights: str | Path = "none",
        last_stride: int = 1,
    ) -> None:
        super().__init__()
        _checks.integer("num_classes", num_classes, 1)
        _checks.integer("part_dim", part_dim, 1)
        self.consensus = ConsensusPooling(_checks.integer("parts", parts, 1), sharpness)
        self.backbone, channels = resolve_backbone(backbone, weights, last_stride)
        self.bn = bn_neck(channels)
        self.classifier = classifier(channels, num_classes)
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, part_dim, bias=False), bn_neck(part_dim)) for _ in range(parts)
        )
        self.part_classifiers = nn.ModuleList(classifier(part_dim, num_classes) for _ in range(parts))
        self.cross_entropy = CrossEntropyLoss()
        self.feature_dim = channels + parts * part_dim

    def forward(
        self, clips: Tensor, valid: Tensor | None = None, label: Tensor | None = None
    ) -> TrainingOutput | Tensor:
        if self.training:
            unmasked(valid)
            return self._training_output(clips, training_label(label))
        blocks = weighted(*self._weigh(clips, valid))
        return torch.cat([_unit(self.bn(blocks.mean(1))), _unit(torch.cat(self._of_parts(blocks), 1))], 1)

    @torch.no_grad()
    def attend(self, clips: Tensor, valid: Tensor | None = None) -> ConsensusPool:
        """Weights of the blocks of clips (B,T,3,h,w), computed in evaluation mode and without gradient."""
        with in_evaluation(self):
            blocks, scores = self._weigh(clips, valid)
            return ConsensusPool(weighted(blocks, scores).mean(1), scores)

    def _training_output(self, clips: Tensor, label: Tensor) -> TrainingOutput:
        maps = frame_maps(self.backbone, clips)
        _checks.row_blocks("parts", self.consensus.blocks, maps.shape[3])
        blocks = block_means(maps, self.consensus.blocks).flatten(0, 1)  # (B*T,K,C)
        targets = label.repeat_interleave(clips.shape[1])
        whole = blocks.mean(1)
        per_part = [
            self.cross_entropy(layer(part), targets)
            for layer, part in zip(self.part_classifiers, self._of_parts(blocks), strict=True)
        ]
        return TrainingOutput(
            self.classifier(self.bn(whole)), whole, {"part_softmax": torch.stack(per_part).sum()}
        )

    def _of_parts(self, blocks: Tensor) -> list[Tensor]:
        """p (n,part_dim) of each part, from blocks (n,K,C)."""
        return [layer(blocks[:, k]) for k, layer in enumerate(self.parts)]

    def _weigh(self, clips: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.consensus.weigh(frame_maps(self.backbone, clips, valid), valid, self.bn)


def _unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x, dim=1)
