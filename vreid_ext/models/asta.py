"""ASTA: Attribute-aware Identity-hard Triplet Loss for Video-based Person Re-identification (Chen, Li, Jiang,
Wang; arXiv:2006.07597, 2020). Equation, section and table numbers are the paper's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext.models.backbones import resolve_backbone
from vreid_ext.models.clips import frame_maps, in_evaluation
from vreid_ext.models.heads import bn_neck, classifier
from vreid_ext.models.output import TrainingOutput
from vreid_ext.models.registry import register_model
from vreid_ext.nn.asta import SpatioTemporalAttention, initialise, spatio_temporal_pool

STREAMS = ("reid", "relevant", "irrelevant")


class AttributeStream(nn.Module):
    """Attention and classifier of one group of attributes (Section 4.1).

    `attention(maps, valid)` returns weights (B,T,H,W). `forward` takes the feature (B,C) that was pooled with
    these weights and returns logits (B, sum of the numbers of classes).
    """

    def __init__(self, channels: int, classes: int, attention: SpatioTemporalAttention, start: str) -> None:
        super().__init__()
        self.attention = attention
        self.classifier = nn.Linear(channels, classes)
        if start == "kaiming":
            nn.init.normal_(self.classifier.weight, std=0.001)
            nn.init.zeros_(self.classifier.bias)

    def forward(self, feature: Tensor) -> Tensor:
        logits: Tensor = self.classifier(feature.relu())
        return logits


@register_model("asta")
class ASTA(nn.Module):
    """The multi-task model. Its options and the losses of the recipe reproduce every row of Tables 1 and 2.

    | row of Table 1         | streams                    | asta  | loss.aitl | loss.itl |
    |------------------------|----------------------------|-------|-----------|----------|
    | Baseline               | reid                       | False | 0         | 0        |
    | Baseline + ASTA        | reid, relevant, irrelevant | True  | 0         | 0        |
    | Baseline + ITL         | reid                       | False | 0         | 1        |
    | Baseline + AITL        | reid, relevant, irrelevant | False | 1         | 0        |
    | Baseline + ASTA + AITL | reid, relevant, irrelevant | True  | 1         | 0        |

    Args:
        num_classes: number of training identities.
        attributes: the data set that defines the attributes and their classes, "mars" or "dukev".
        streams: the streams to build, any of "reid", "relevant" and "irrelevant" (Table 2). The last two
            recognize the ID-relevant and the ID-irrelevant attributes.
        asta: concatenate the features of all streams, which gives 3 C dimensions (6144 with ResNet-50). If
            False, use only the feature of "reid"; then the attribute streams only provide the predictions
            that AITL uses for mining.
        composition: how the streams pool the maps. "original", as in the paper: "reid" with equal weights,
            each attribute stream with its attention. "authors", as in the authors' code: "reid" with an
            attention of its own (a 3x3 convolution and a sigmoid), each attribute stream with the product of
            its attention and that of "reid".
        fixed_maps: detach the maps that are pooled for attribute recognition (as in the authors' code).
        input_size: (height, width) of the frames; determines the number of channels of the temporal
            convolution.
        width, start, detach: see `nn.asta.SpatioTemporalAttention`. With start "kaiming" the weights of the
            attribute classifiers are initialized with a standard deviation of 0.001, as in the authors' code.
        backbone: a name for `build_backbone`, or a module (N,3,h,w) -> (N,C,H,W) with an `out_channels`.
        weights, last_stride, backbone_options: passed to `build_backbone`, as is `input_size`; ignored if
            `backbone` is a module.

    Call: `model(clips, valid=None)` with clips (B,T,3,h,w) and valid (B,T) bool, False for padding frames of
    short clips. In training it returns a `TrainingOutput`: the feature before BNNeck for the triplet losses,
    the identity logits computed after BNNeck, and `attributes`, the logits of each attribute stream. In
    evaluation it returns the feature (B,D) after BNNeck.

    Attributes:
        feature_dim: D of the feature.
        attribute_sizes: for each attribute stream, the number of classes of each of its attributes.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        attributes: str = "mars",
        streams: Sequence[str] = STREAMS,
        asta: bool = True,
        composition: str = "original",
        fixed_maps: bool = False,
        width: int | None = None,
        start: str = "torch",
        input_size: Sequence[int] = (256, 128),
        detach: bool = True,
        backbone: str | nn.Module = "resnet50",
        weights: str | Path = "none",
        last_stride: int = 1,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        from vreid_ext.data import attribute_sizes

        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes: expected an int of at least 1, got {num_classes!r}")
        streams = tuple(streams)
        if not streams or set(streams) - set(STREAMS) or len(set(streams)) < len(streams):
            raise ValueError(f"streams: expected one or more of {STREAMS}, each once, got {streams}")
        if not asta and "reid" not in streams:
            raise ValueError(f"streams: expected 'reid' among them, got {streams} without asta")
        if composition not in ("original", "authors"):
            raise ValueError(f"composition: expected 'original' or 'authors', got {composition!r}")
        self.backbone, channels = resolve_backbone(
            backbone, weights, last_stride, input_size, backbone_options
        )
        size = _map_size(self.backbone, input_size)

        self.streams = tuple(stream for stream in STREAMS if stream in streams)
        self.asta, self.fixed_maps = asta, fixed_maps
        self.attribute_sizes: dict[str, dict[str, int]] = {
            stream: attribute_sizes(attributes, f"id_{stream}")  # type: ignore[arg-type]
            for stream in self.streams
            if stream != "reid"
        }
        self.attribute_streams = nn.ModuleDict(
            {
                stream: AttributeStream(
                    channels,
                    sum(sizes.values()),
                    SpatioTemporalAttention(channels, size, width=width, start=start, detach=detach),
                    start,
                )
                for stream, sizes in self.attribute_sizes.items()
            }
        )
        attended = asta and composition == "authors" and "reid" in self.streams
        self.reid_attention = (
            nn.Sequential(nn.Conv2d(channels, 1, 3, padding=1), nn.Sigmoid()) if attended else None
        )
        if self.reid_attention is not None:
            initialise(self.reid_attention, start)
        self.feature_dim = channels * (len(self.streams) if asta else 1)
        self.bn = bn_neck(self.feature_dim)
        self.classifier = classifier(self.feature_dim, num_classes)

    def forward(self, clips: Tensor, valid: Tensor | None = None) -> TrainingOutput | Tensor:
        feature, attributes = self._streams(clips, valid)
        normalised = self.bn(feature)
        if self.training:
            return TrainingOutput(self.classifier(normalised), feature, {}, attributes, normalised)
        return normalised

    def feature_and_attributes(self, clips: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The feature (B,D) after BNNeck, and the concatenated logits of all attribute streams."""
        feature, attributes = self._streams(clips, valid)
        return self.bn(feature), torch.cat([feature[:, :0], *attributes.values()], 1)

    def _streams(self, clips: Tensor, valid: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The feature (B,D) before BNNeck, and the logits of each attribute stream."""
        maps = frame_maps(self.backbone, clips, valid)
        own = self._reid_weights(maps)
        features: list[Tensor] = []
        attributes: dict[str, Tensor] = {}
        for stream in self.streams:
            if stream == "reid":
                features.append(spatio_temporal_pool(maps, own, valid))
                continue
            module = self.attribute_streams[stream]
            assert isinstance(module, AttributeStream)
            weights = module.attention(maps, valid)
            feature = spatio_temporal_pool(maps.detach() if self.fixed_maps else maps, weights, valid)
            attributes[stream] = module(feature)
            if self.asta and (own is not None or self.fixed_maps):
                feature = spatio_temporal_pool(maps, weights if own is None else weights * own, valid)
            if self.asta:
                features.append(feature)
        return torch.cat(features, 1), attributes

    def _reid_weights(self, maps: Tensor) -> Tensor | None:
        """Attention (B,T,H,W) of the stream "reid", or None if it has none."""
        if self.reid_attention is None:
            return None
        weights: Tensor = self.reid_attention(maps.flatten(0, 1))
        return weights[:, 0].unflatten(0, maps.shape[:2])

    @torch.no_grad()
    def attend(self, clips: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
        """Attention (B,T,H,W) of each stream that has one, computed in evaluation mode without gradient."""
        with in_evaluation(self):
            maps = frame_maps(self.backbone, clips, valid)
            own = self._reid_weights(maps)
            attended = {} if own is None else {"reid": own}
            for stream, module in self.attribute_streams.items():
                assert isinstance(module, AttributeStream)
                attended[stream] = module.attention(maps, valid)
            return attended


def _map_size(backbone: nn.Module, input_size: Sequence[int]) -> tuple[int, int]:
    """(H, W) of the backbone's output for frames of this (height, width), determined by a forward pass."""
    if len(input_size) != 2 or not all(isinstance(n, int) and n > 0 for n in input_size):
        raise ValueError(f"input_size: expected (height, width) in pixels, got {input_size!r}")
    with in_evaluation(backbone), torch.no_grad():
        parameter = next(backbone.parameters(), torch.empty(0, dtype=torch.float32))
        maps = backbone(torch.zeros(1, 3, *input_size, device=parameter.device, dtype=parameter.dtype))
    if maps.dim() != 4:
        raise ValueError(f"backbone: expected an output of shape (N,C,H,W), got {tuple(maps.shape)}")
    return maps.shape[2], maps.shape[3]
