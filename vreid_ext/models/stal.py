"""STAL: Spatial-Temporal Attention-aware Learning for Video-based Person Re-identification
(Chen, Lu, Yang, Zhou; IEEE TIP 2019). Equation, figure and table numbers are the paper's.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vreid_ext import ops
from vreid_ext.losses import CrossEntropyLoss, PartTripletLoss, gather_with_gradient
from vreid_ext.losses.drawn import draws_for
from vreid_ext.models.backbones import Backbone, resolve_backbone, split_backbone
from vreid_ext.models.clips import check_clips, in_evaluation
from vreid_ext.models.heads import classifier
from vreid_ext.models.output import TrainingOutput
from vreid_ext.models.registry import register_model
from vreid_ext.nn import (
    QualityNetwork,
    ResidualAttention,
    aggregate_parts,
    normalise_scores,
    part_boxes,
    pool_parts,
    standing_boxes,
)
from vreid_ext.nn.frames import each_frame, mean_over_frames
from vreid_ext.nn.gem import cell_pooling
from vreid_ext.nn.parts import PART_NAMES

_BRANCHES = ("both", "global", "local")
_ATTENTION = ("both", "temporal", "spatial", "none")


class Description(NamedTuple):
    """Description of tracklets, from which `STAL.distance` is computed; result of `STAL.unpack`.

    Attributes:
        globals: g (B,Dg), the mean over frames.
        features: f (B,R,D), Eq. 9.
        scores: a-bar (B,R), up to a factor per tracklet that cancels in Eq. 8.
    """

    globals: Tensor
    features: Tensor
    scores: Tensor


class PartScores(NamedTuple):
    """Result of `STAL.attend`.

    Attributes:
        scores: a^{r,t} (B,T,R), L1-normalized over each clip.
        joints: (B,T,14,3), the joints that defined the boxes of the parts; None: boxes of a standing person.
    """

    scores: Tensor
    joints: Tensor | None


@register_model("stal")
class STAL(nn.Module):
    """The STAL model with the options of its ablations.

    Global branch: low-level CNN, residual attention, high-level CNN, mean over cells and frames. Local
    branch: boxes of six body parts from joints (Eq. 7), ROI pooling on the low-level map, one network per
    part. Attention branch: a quality score for every part in every frame. The distance of two tracklets is

        d = psi (Eq. 8) + fusion * d_g        d_g = ||g_i - g_j||

    Args:
        num_classes: number of training identities.
        branches: the branches to build and train: "both", "global" (PGB of Fig. 6) or "local" (PLB).
        residual_attention: False omits the residual attention (Fig. 6).
        part_dim: D of a part's feature; 1024 in the paper.
        part_margin: margin of the triplet loss on psi; 0.8 in the paper.
        part_mining: triplets of that loss: "drawn" at random as in the paper, or the "hardest" of the batch.
        global_dim: D of g, set by a linear layer after the mean. None: the number of channels of the
            backbone, 1024 with GoogLeNet as in the paper (Fig. 9 varies both dimensions).
        cells: pooling over the cells in the global branch, "mean" as in the paper or "gem" (`nn.GeMPooling`).
        fusion: weight of d_g; 0.3 in the paper.
        test_branches: with branches "both", the distances used in evaluation (GB and LB of Fig. 6).
        test_parts: names from `nn.parts.PART_NAMES` of the parts used in evaluation (Fig. 7, with
            test_branches "local"); None for all.
        test_attention: the scores used in evaluation (Fig. 5): "both"; "temporal" (TAN), which weights parts
            equally; "spatial" (SAN), which weights frames equally; "none", the baseline of the paper.
        roi: "pool" as in the paper, or "align"; see `nn.pool_parts`.
        roi_size: height and width of a part's map; 8 in the paper.
        margin: margin added to each side of the boxes, as a fraction of the frame; 0 in the paper.
        backbone: a name for `build_backbone` of a backbone that can be split, in the paper "resnet50" (the
            better one) or "googlenet" (Table I); or a `Backbone`.
        weights, last_stride, input_size, backbone_options: passed to `build_backbone`; ignored if `backbone`
            is a module. Part networks start from the same weights. A recipe fills in `input_size`.
        split: name of the last layer before the split of the backbone. By default its `split_after`, the
            layer with 14 x 14 maps for 224 x 224 images: "layer3" of a ResNet, "inception4b" of GoogLeNet.
            The part networks are copies of the layers after it, up to and including the next one that halves
            the map.
        backend: backend of `ops.part_distance`.

    Call: `model(clips, valid=None, joints=None, label=None)` with clips (B,T,3,h,w), valid (B,T) bool, False
    for padding frames of short clips, joints (B,T,14,3) as in `nn.part_boxes` (None: boxes of a standing
    person), and label (B,) integer, required for training the local branch.

    In training it returns `TrainingOutput(logits, feature, extras)`. Logits and feature are those of the
    global branch; with branches "local", they are the mean logits of the part classifiers and the
    concatenated part features. `extras` has the losses of the local branch: "part_softmax" (Eq. 6: sum over
    parts of the mean over frames) and "part_triplet" (second sum of Eq. 4).

    In evaluation it returns a row of sums for each clip; compare rows with `distance`. The sums are additive,
    so the mean of the rows of all clips of a tracklet is equivalent to the row of one clip with all its
    frames. The rows are not features: a cosine or Euclidean distance between them has no meaning.

    Attributes:
        takes: keys of a `ClipDataset` batch that are passed to the model as keyword arguments, in addition to
            clip and valid.
        feature_dim: D of the feature in training.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    takes = ("joints", "label")

    def __init__(
        self,
        num_classes: int,
        *,
        branches: str = "both",
        residual_attention: bool = True,
        part_dim: int = 1024,
        part_margin: float = 0.8,
        part_mining: str = "hardest",
        global_dim: int | None = None,
        cells: str = "mean",
        fusion: float = 0.3,
        test_branches: str = "both",
        test_parts: Sequence[str] | None = None,
        test_attention: str = "both",
        roi: str = "pool",
        roi_size: int = 8,
        margin: float = 0.0,
        backbone: str | Backbone = "resnet50",
        weights: str | Path = "none",
        last_stride: int = 2,
        input_size: Sequence[int] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        split: str | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes: expected an int of at least 1, got {num_classes!r}")
        for name, value, allowed in (
            ("branches", branches, _BRANCHES),
            ("test_branches", test_branches, _BRANCHES),
            ("test_attention", test_attention, _ATTENTION),
            ("roi", roi, ("pool", "align")),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
        if branches != "both" and test_branches not in ("both", branches):
            raise ValueError(
                f"test_branches: expected 'both' or the branch trained, {branches!r}, got {test_branches!r}"
            )
        if test_parts is not None and (not test_parts or set(test_parts) - set(PART_NAMES)):
            raise ValueError(
                f"test_parts: expected one or more of {', '.join(PART_NAMES)}, got {list(test_parts)}"
            )
        numbers = {"part_dim": part_dim, "roi_size": roi_size, "global_dim": global_dim or 1}
        for name, number in numbers.items():
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name}: expected an int of at least 1, got {number!r}")
        if not 0 <= fusion < float("inf"):
            raise ValueError(f"fusion: expected a finite number >= 0, got {fusion}")

        whole, _ = resolve_backbone(backbone, weights, last_stride, input_size, backbone_options)
        low, part, high = split_backbone(whole, split, backbone if isinstance(backbone, str) else None)

        self.branches, self.test_branches, self.test_attention = branches, test_branches, test_attention
        self.fusion, self.backend = fusion, backend
        self.roi, self.roi_size, self.margin = roi, roi_size, margin
        self.parts, self.part_dim = len(PART_NAMES), part_dim
        self.shown = [n for n, name in enumerate(PART_NAMES) if test_parts is None or name in test_parts]
        self.global_dim = global_dim or high.out_channels
        self.low = low
        if self._has("global"):
            self.attention = ResidualAttention(low.out_channels) if residual_attention else nn.Identity()
            self.high = high
            self.cells = cell_pooling(cells)
            self.embed = nn.Linear(high.out_channels, global_dim) if global_dim else nn.Identity()
            self.classifier = classifier(self.global_dim, num_classes, bias=True)
        if self._has("local"):
            self.part_networks = nn.ModuleList(_part_network(part, part_dim) for _ in PART_NAMES)
            self.part_classifiers = nn.ModuleList(
                classifier(part_dim, num_classes, bias=True) for _ in PART_NAMES
            )
            self.quality = QualityNetwork(self.parts)
            self.cross_entropy = CrossEntropyLoss()
            self.part_triplet = PartTripletLoss(part_margin, backend, part_mining)
        self.feature_dim = self.global_dim if self._has("global") else self.parts * part_dim

    def forward(
        self,
        clips: Tensor,
        valid: Tensor | None = None,
        joints: Tensor | None = None,
        label: Tensor | None = None,
    ) -> TrainingOutput | Tensor:
        self._check(clips, valid, joints, label)
        maps = each_frame(self.low, clips, valid)
        g = f = scores = None
        if self._has("global"):
            frames = each_frame(self.attention, maps, valid)
            g = self.embed(mean_over_frames(self.cells(each_frame(self.high, frames, valid)), valid))
        if self._has("local"):
            f = self._part_features(maps, valid, joints)
            scores = self.quality(clips, valid)
        if self.training:
            return self._training_output(g, f, scores, valid, label)
        return self._sums(g, f, scores, valid, clips.shape[1])

    def unpack(self, rows: Tensor) -> Description:
        """Convert evaluation rows (n, columns) to a `Description`. Branches not built have no columns."""
        sizes = [1]
        sizes += [self.global_dim] if self._has("global") else [0]
        sizes += [self.parts * self.part_dim, self.parts, self.parts] if self._has("local") else [0, 0, 0]
        if rows.dim() != 2 or rows.shape[1] != sum(sizes):
            raise ValueError(f"rows: expected shape (n,{sum(sizes)}), got {tuple(rows.shape)}")
        count, g, features, weight, quality = rows.split(sizes, 1)
        features = features.reshape(*weight.shape, self.part_dim) / weight[..., None]
        return Description(g / count, features, quality)

    def distance(self, query: Tensor, gallery: Tensor) -> Tensor:
        """d = psi + fusion * d_g between rows (Q, columns) and (G, columns) of the evaluation: (Q,G)."""
        mine, theirs = self.unpack(query), self.unpack(gallery)
        branches = self.branches if self.branches != "both" else self.test_branches
        terms = []
        if branches != "global":
            terms.append(
                ops.part_distance(
                    mine.features[:, self.shown],
                    mine.scores[:, self.shown],
                    theirs.features[:, self.shown],
                    theirs.scores[:, self.shown],
                    backend=self.backend,
                )
            )
        if branches != "local":
            ones = query.new_ones(len(query), 1), gallery.new_ones(len(gallery), 1)
            d_g = ops.part_distance(
                mine.globals[:, None], ones[0], theirs.globals[:, None], ones[1], backend=self.backend
            )
            terms.append(d_g if branches == "global" else self.fusion * d_g)
        return torch.stack(terms).sum(0)

    @torch.no_grad()
    def attend(
        self, clips: Tensor, valid: Tensor | None = None, joints: Tensor | None = None
    ) -> PartScores | None:
        """Scores of the parts in every frame (Fig. 12), computed in evaluation mode and without gradient.

        Returns None if the model has no local branch.
        """
        if not self._has("local"):
            return None
        with in_evaluation(self):
            self._check(clips, valid, joints, label=None)
            return PartScores(normalise_scores(self.quality(clips), valid), joints)

    def boxes(self, joints: Tensor | None, like: Tensor) -> Tensor:
        """Boxes (N,6,4) of the parts in N frames: Eq. 7, or the boxes of a standing person if joints is None.

        Args:
            joints: (B,T,14,3) with B*T = N, or None.
            like: (N,...), a tensor that defines N, dtype and device if joints is None.
        """
        if joints is None:
            return standing_boxes(like).expand(like.shape[0], -1, -1)
        return part_boxes(joints.flatten(0, 1), margin=self.margin)

    def _part_features(self, maps: Tensor, valid: Tensor | None, joints: Tensor | None) -> Tensor:
        """f^{r,t} (B,T,R,D) from maps (B,T,C,H,W)."""
        frames = maps.flatten(0, 1)
        regions = pool_parts(frames, self.boxes(joints, frames), self.roi_size, how=self.roi)
        regions = regions.unflatten(0, maps.shape[:2])
        features = [each_frame(net, regions[:, :, r], valid) for r, net in enumerate(self.part_networks)]
        return torch.stack(features, 2)

    def _training_output(
        self,
        g: Tensor | None,
        f: Tensor | None,
        scores: Tensor | None,
        valid: Tensor | None,
        label: Tensor | None,
    ) -> TrainingOutput:
        if f is None or scores is None or label is None:
            assert g is not None
            return TrainingOutput(self.classifier(g), g, {})
        features, quality = aggregate_parts(f, normalise_scores(scores, valid), valid)
        seen = f.new_ones(f.shape[:2], dtype=torch.bool) if valid is None else valid
        targets = label[:, None].expand(seen.shape)[seen]
        per_part = [
            self.cross_entropy(classifier(f[:, :, r][seen]), targets)
            for r, classifier in enumerate(self.part_classifiers)
        ]
        compared = [features, quality, label]
        if self.part_triplet.mining == "drawn":
            compared.append(draws_for(label))
        extras = {
            "part_softmax": torch.stack(per_part).sum(),
            "part_triplet": self.part_triplet(*map(gather_with_gradient, compared)),
        }
        if g is not None:
            return TrainingOutput(self.classifier(g), g, extras)
        logits = [classifier(features[:, r]) for r, classifier in enumerate(self.part_classifiers)]
        return TrainingOutput(torch.stack(logits).mean(0), features.flatten(1), extras)

    def _sums(
        self, g: Tensor | None, f: Tensor | None, scores: Tensor | None, valid: Tensor | None, frames: int
    ) -> Tensor:
        """Rows for `unpack`: number of frames, sum of g, sums of a f and of a (Eq. 9), sum of a (Eq. 8)."""
        some = g if g is not None else f
        assert some is not None
        count = (
            some.new_full((some.shape[0], 1), frames)
            if valid is None
            else valid.sum(1, keepdim=True).to(some)
        )
        sums = [count]
        if g is not None:
            sums.append(g * count)
        if f is not None and scores is not None:
            over_frames = scores if self.test_attention in ("both", "temporal") else torch.ones_like(scores)
            over_parts = scores if self.test_attention in ("both", "spatial") else torch.ones_like(scores)
            features, weight = aggregate_parts(f, over_frames, valid)
            sums.append((features * weight[..., None] * count[..., None]).flatten(1))
            sums += [weight * count, mean_over_frames(over_parts, valid) * count]
        return torch.cat(sums, 1)

    def _has(self, branch: str) -> bool:
        return self.branches in ("both", branch)

    def _check(
        self, clips: Tensor, valid: Tensor | None, joints: Tensor | None, label: Tensor | None
    ) -> None:
        check_clips(clips, valid)
        if joints is not None and joints.shape != (*clips.shape[:2], 14, 3):
            expected = (*clips.shape[:2], 14, 3)
            raise ValueError(f"joints: expected shape (B,T,14,3) = {expected}, got {tuple(joints.shape)}")
        if self.training and self._has("local") and label is None:
            raise ValueError("label: expected identities (B,) to train the local branch, got None")


def _part_network(layers: Backbone, part_dim: int) -> nn.Module:
    """A copy of `layers`, the layers after the split, followed by a fully connected layer."""
    return nn.Sequential(
        deepcopy(layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(layers.out_channels, part_dim)
    )
