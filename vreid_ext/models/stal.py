"""STAL: Spatial-Temporal Attention-aware Learning for Video-based Person Re-identification
(Chen, Lu, Yang, Zhou; IEEE TIP 2019). Equation, figure and table numbers are the paper's.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vreid_ext import ops
from vreid_ext.losses import CrossEntropyLoss, PartTripletLoss, gather_with_gradient
from vreid_ext.losses.drawn import draws_for
from vreid_ext.models.backbones import Backbone, build_backbone, split_backbone, split_name
from vreid_ext.models.clips import in_evaluation
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
from vreid_ext.nn.parts import PART_NAMES

_BRANCHES = ("both", "global", "local")
_ATTENTION = ("both", "temporal", "spatial", "none")


class Description(NamedTuple):
    """What STAL compares of a tracklet (`STAL.unpack`).

    Attributes:
        globals: g (B,Dg), the mean over frames.
        features: f (B,R,D), Eq. 9.
        scores: a-bar (B,R), up to a factor for each tracklet, which cancels in Eq. 8.
    """

    globals: Tensor
    features: Tensor
    scores: Tensor


class PartScores(NamedTuple):
    """What STAL's attention says of clips (`STAL.attend`).

    Attributes:
        scores: a^{r,t} (B,T,R), L1-normalised over each clip.
        joints: (B,T,14,3) that the parts were found by; None: standing proportions.
    """

    scores: Tensor
    joints: Tensor | None


@register_model("stal")
class STAL(nn.Module):
    """The STAL system with the switches of its ablations.

    Global branch: low-level CNN, residual attention, high-level CNN, mean over cells and frames. Local
    branch: boxes of six body parts from joints (Eq. 7), ROI pooling on the low-level map, a network for each
    part. Attention branch: a quality score for every part in every frame. Tracklets are compared by

        d = psi (Eq. 8) + fusion * d_g        d_g = ||g_i - g_j||

    Args:
        num_classes: training identities.
        branches: which are built and trained: "both", "global" (PGB of Fig. 6) or "local" (PLB).
        residual_attention: False leaves the residual attention out (Fig. 6).
        part_dim: D of a part's feature; 1024 in the paper.
        part_margin: margin of the triplet loss on psi; 0.8 in the paper.
        part_mining: its triplets, "drawn" as in the paper or the "hardest" of the batch.
        global_dim: D of g, by a linear layer behind the mean; None keeps the channels of the backbone, 1024
            with GoogLeNet as in the paper (Fig. 9 varies both dimensions).
        fusion: weight of d_g; 0.3 in the paper.
        test_branches: with branches "both", which distances count in evaluation (GB and LB of Fig. 6).
        test_parts: names of `nn.parts.PART_NAMES` whose distances count in evaluation (Fig. 7, with
            test_branches "local"); None for all.
        test_attention: which scores count in evaluation (Fig. 5): "both"; "temporal" (TAN), parts weighted
            alike; "spatial" (SAN), frames weighted alike; "none", the paper's baseline.
        roi: "pool" as in the paper, or "align"; see `nn.pool_parts`.
        roi_size: side of a part's map; 8 in the paper.
        margin: added to the boxes on every side, a share of the frame; 0 in the paper.
        backbone: "resnet50", the paper's better row, "googlenet" (Table I), "resnet18" or "resnet34"; or a
            `Backbone`, with `split` given.
        weights, last_stride: for `build_backbone`; part networks start from the same weights.
        split: the layer behind which the backbone is cut; by default where 224 x 224 images have 14 x 14
            maps: "layer3" of a ResNet, "inception4b" of GoogLeNet. The part networks have the form of the
            layers that follow, up to the next halving.
        backend: for `ops.part_distance`.

    Call: `model(clips, valid=None, joints=None, label=None)`, clips (B,T,3,h,w), valid (B,T) bool with False
    for frames that pad a short clip, joints (B,T,14,3) as `nn.part_boxes` takes them (None: standing
    proportions), label (B,) integer, needed in training of the local branch. In training
    `TrainingOutput(logits, feature, extras)`: of the global branch, or with "local" the mean of the part
    classifiers and all part features in a row; extras "part_softmax" (Eq. 6: the sum over parts of the mean
    over frames) and "part_triplet" (second sum of Eq. 4) of the local branch.

    In evaluation a row of sums for each clip, to be compared by `distance`. Sums over clips of a tracklet
    add up, so the mean over the clips of a long tracklet is what a single clip of all its frames gives. The
    rows are no features: by cosine or a plain distance they compare nothing.

    Attributes:
        takes: the entries of a batch (`ClipDataset`) that the call takes by name beside clip and valid.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and got.
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

        if isinstance(backbone, str):
            split = split or split_name(backbone)
            backbone = build_backbone(backbone, weights, last_stride)
        elif split is None:
            raise ValueError(
                "split: expected the name of one of its layers, got none with a module as backbone"
            )
        low, part, high = split_backbone(backbone, split)

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
            g = self.embed(mean_over_frames(each_frame(self.high, frames, valid).mean((3, 4)), valid))
        if self._has("local"):
            f = self._part_features(maps, valid, joints)
            scores = self.quality(clips, valid)
        if self.training:
            return self._training_output(g, f, scores, valid, label)
        return self._sums(g, f, scores, valid, clips.shape[1])

    def unpack(self, rows: Tensor) -> Description:
        """What rows (n, columns) of the evaluation say; a branch that was not built has no columns."""
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
        wanted = self.branches if self.branches != "both" else self.test_branches
        terms = []
        if wanted != "global":
            terms.append(
                ops.part_distance(
                    mine.features[:, self.shown],
                    mine.scores[:, self.shown],
                    theirs.features[:, self.shown],
                    theirs.scores[:, self.shown],
                    backend=self.backend,
                )
            )
        if wanted != "local":
            ones = query.new_ones(len(query), 1), gallery.new_ones(len(gallery), 1)
            d_g = ops.part_distance(
                mine.globals[:, None], ones[0], theirs.globals[:, None], ones[1], backend=self.backend
            )
            terms.append(d_g if wanted == "global" else self.fusion * d_g)
        return torch.stack(terms).sum(0)

    @torch.no_grad()
    def attend(
        self, clips: Tensor, valid: Tensor | None = None, joints: Tensor | None = None
    ) -> PartScores | None:
        """Scores of the parts in every frame, for pictures (Fig. 12): evaluation mode, no gradient.

        None for a model without the local branch.
        """
        if not self._has("local"):
            return None
        with in_evaluation(self):
            self._check(clips, valid, joints, label=None)
            return PartScores(normalise_scores(self.quality(clips), valid), joints)

    def boxes(self, joints: Tensor | None, like: Tensor) -> Tensor:
        """Part boxes (N,6,4) of N frames `like` (N,...): Eq. 7, or standing proportions without joints."""
        if joints is None:
            return standing_boxes(like).expand(like.shape[0], -1, -1)
        return part_boxes(joints.flatten(0, 1), margin=self.margin)

    def _part_features(self, maps: Tensor, valid: Tensor | None, joints: Tensor | None) -> Tensor:
        """f^{r,t} (B,T,R,D) of maps (B,T,C,H,W)."""
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
        """The rows that `unpack` reads: frames, sum of g, sums of a f and a for Eq. 9, sum of a for Eq. 8."""
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
        if clips.dim() != 5 or clips.shape[2] != 3:
            raise ValueError(f"clips: expected shape (B,T,3,h,w), got {tuple(clips.shape)}")
        if valid is not None and (valid.dtype != torch.bool or valid.shape != clips.shape[:2]):
            got, wanted = (valid.dtype, tuple(valid.shape)), tuple(clips.shape[:2])
            raise ValueError(f"valid: expected a bool tensor (B,T) = {wanted}, got {got[0]} {got[1]}")
        if joints is not None and joints.shape != (*clips.shape[:2], 14, 3):
            wanted = (*clips.shape[:2], 14, 3)
            raise ValueError(f"joints: expected shape (B,T,14,3) = {wanted}, got {tuple(joints.shape)}")
        if self.training and self._has("local") and label is None:
            raise ValueError("label: expected (B,) identities, got none in training of the local branch")


def _part_network(mould: Backbone, part_dim: int) -> nn.Module:
    """The layers that follow the split, with weights of its own, then a fully connected layer."""
    return nn.Sequential(
        deepcopy(mould), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(mould.out_channels, part_dim)
    )
