"""OSNet: Omni-Scale Feature Learning for Person Re-Identification (Zhou, Yang, Cavallaro, Xiang; ICCV 2019),
and OSNet-AIN: Learning Generalisable Omni-Scale Representations for Person Re-Identification (TPAMI 2021).

The parameters have torchreid's names, so its files are loaded by name.
"""

from collections import OrderedDict

from torch import Tensor, nn

from vreid_ext.models.backbones.base import Backbone
from vreid_ext.models.backbones.registry import register_backbone

# Channels of the stem and of the three stages (Table 1) at width 1. The other widths multiply them.
_CHANNELS = (64, 256, 384, 512)
_WIDTHS = {"x1_0": 1.0, "x0_75": 0.75, "x0_5": 0.5, "x0_25": 0.25}
_SCALES = 4  # T, the number of streams of a block
_REDUCTION = 4  # of the channels inside a block
_GATE_REDUCTION = 16


class OmniScaleBlock(nn.Module):
    """Omni-scale residual block (ICCV, section 3.2).

        y = relu(x + conv3(sum_t G(x^t) * x^t))

    x^t is stream t, a chain of t lightweight 3 x 3 convolutions, whose receptive field is 2t + 1. G is the
    aggregation gate, which all streams share.

    Args:
        norm: instance normalization: "none"; "sum", of the sum with x (IBN); "residual", of the residual
            before the sum (AIN, TPAMI Fig. 5).
        named_by_list: names of the streams in torchreid: True for OSNet-AIN (`conv2.0` to `conv2.3`), False
            for OSNet (`conv2a` to `conv2d`).
    """

    def __init__(self, inputs: int, outputs: int, norm: str, named_by_list: bool) -> None:
        super().__init__()
        middle = outputs // _REDUCTION
        self.conv1 = _convolution(inputs, middle, 1)
        streams = [
            nn.Sequential(*(LightConvolution(middle) for _ in range(scale)))
            for scale in range(1, _SCALES + 1)
        ]
        self.names = [f"conv2.{n}" if named_by_list else f"conv2{'abcd'[n]}" for n in range(_SCALES)]
        if named_by_list:
            self.conv2 = nn.ModuleList(nn.Sequential(OrderedDict(layers=stream)) for stream in streams)
        else:
            for name, stream in zip(self.names, streams, strict=True):
                setattr(self, name, stream[0] if len(stream) == 1 else stream)
        self.gate = AggregationGate(middle)
        self.conv3 = _convolution(middle, outputs, 1, norm=norm != "residual", relu=False)
        self.downsample = _convolution(inputs, outputs, 1, relu=False) if inputs != outputs else None
        self.norm = norm
        self.IN = nn.InstanceNorm2d(outputs, affine=True) if norm != "none" else None

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        gated = [self.gate(self.get_submodule(name)(reduced)) for name in self.names]
        residual = self.conv3(sum(gated[1:], gated[0]))
        if self.norm == "residual" and self.IN is not None:
            residual = self.IN(residual)
        total = residual + (x if self.downsample is None else self.downsample(x))
        if self.norm == "sum" and self.IN is not None:
            total = self.IN(total)
        return total.relu()


class LightConvolution(nn.Module):
    """Lightweight 3 x 3 convolution (ICCV, section 3.1): pointwise, then depthwise, then BN and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv2(self.conv1(x)))
        return y.relu()


class AggregationGate(nn.Module):
    """G(x) * x with channel weights G: mean over the cells, two layers, sigmoid (ICCV, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _GATE_REDUCTION, 1)
        self.fc2 = nn.Conv2d(channels // _GATE_REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * weights


def osnet(width: float, norms: tuple[str, ...], stem_norm: bool, ain: bool) -> Backbone:
    """Build an OSNet without its pooling and fully connected layers.

    Args:
        width: factor of the numbers of channels.
        norms: `norm` of the six blocks.
        stem_norm: use instance instead of batch normalization after the first convolution.
        ain: use the names and the order of the layers of torchreid's OSNet-AIN.
    """
    stem, *stages = (int(width * channels) for channels in _CHANNELS)
    layers: dict[str, nn.Module] = {
        "conv1": _convolution(3, stem, 7, 2, instance=stem_norm),
        "maxpool": nn.MaxPool2d(3, 2, padding=1),
    }
    inputs = stem
    for number, outputs in enumerate(stages):
        name, last = f"conv{number + 2}", number == len(stages) - 1
        pair = norms[2 * number : 2 * number + 2]
        blocks = [
            OmniScaleBlock(channels, outputs, norm, ain)
            for channels, norm in zip((inputs, outputs), pair, strict=True)
        ]
        halve = nn.Sequential(_convolution(outputs, outputs, 1), nn.AvgPool2d(2))
        layers[name] = nn.Sequential(*blocks) if ain or last else nn.Sequential(*blocks, halve)
        if ain and not last:
            layers[f"pool{number + 2}"] = halve
        inputs = outputs
    layers["conv5"] = _convolution(inputs, inputs, 1)
    backbone = Backbone(layers, inputs, split_after="pool3" if ain else "conv3")
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return backbone


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1,
    *, norm: bool = True, instance: bool = False, relu: bool = True,
) -> nn.Sequential:  # fmt: skip
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    )
    if norm:
        layers["bn"] = nn.InstanceNorm2d(outputs, affine=True) if instance else nn.BatchNorm2d(outputs)
    if relu:
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _register(name: str, width: float, norms: tuple[str, ...], *, stem_norm: bool, ain: bool) -> None:
    @register_backbone(name)
    def factory(last_stride: int) -> Backbone:  # OSNet does not halve the map after its second stage
        return osnet(width, norms, stem_norm, ain)


# TPAMI, section 4.4: the positions of the instance normalization that the architecture search found.
_AIN = ("residual", "residual", "none", "residual", "residual", "none")
_IBN = ("sum", "sum", "none", "none", "none", "none")

for _suffix, _width in _WIDTHS.items():
    _register(f"osnet_{_suffix}", _width, ("none",) * 6, stem_norm=False, ain=False)
    _register(f"osnet_ain_{_suffix}", _width, _AIN, stem_norm=True, ain=True)
_register("osnet_ibn_x1_0", 1.0, _IBN, stem_norm=True, ain=False)
