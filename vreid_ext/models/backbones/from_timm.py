"""Backbones of timm (Wightman, github.com/huggingface/pytorch-image-models): `timm:NAME`."""

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vreid_ext.models.backbones.base import Backbone
from vreid_ext.models.backbones.strides import keep_size
from vreid_ext.models.clips import in_evaluation
from vreid_ext.weights.swin import timm_swin

PREFIX = "timm:"
_NEAR = 3  # number of similar names in an error


class Tokens(NamedTuple):
    """Result of `TokenBackbone.tokens`.

    Attributes:
        prefix: (N,P,C), the class token and the register tokens; P may be 0.
        maps: (N,C,H,W), the tokens of the patches.
    """

    prefix: Tensor
    maps: Tensor


class TimmBackbone(Backbone):
    """A network of timm that is one layer, `network`.

    Args:
        network: a model of timm without pooling and classifier. Its `forward_features` returns maps
            (N,C,H,W), or (N,H,W,C) if its `output_fmt` is NHWC.
    """

    def __init__(self, network: Any) -> None:
        super().__init__({"network": network}, network.num_features)
        self.network: Any

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.network.forward_features(images)
        return maps.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", None) == "NHWC" else maps

    @property
    def original(self) -> nn.Module:
        network: nn.Module = self.network
        return network

    def depths(self) -> dict[str, int]:
        from timm.models import group_parameters

        layers = group_parameters(self.network, self.network.group_matcher(coarse=False))
        return {f"network.{name}": depth for depth, names in layers.items() for name in names}


class TokenBackbone(TimmBackbone):
    """A network of timm that returns tokens, such as a ViT.

    `forward` returns the maps of the patches (N,C,H,W), `tokens` also the class token.

    Args:
        network: a model of timm without pooling and classifier. Its `forward_features` returns tokens
            (N,P+HW,C): P = `num_prefix_tokens`, then the patches row by row.
        input_size: (height, width) of the images.
        patch_size: (height, width) of a patch.
    """

    def __init__(self, network: Any, input_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        super().__init__(network)
        self.input_size = input_size
        self.grid = (input_size[0] // patch_size[0], input_size[1] // patch_size[1])

    def forward(self, images: Tensor) -> Tensor:
        return self.tokens(images).maps

    def tokens(self, images: Tensor) -> Tokens:
        """Class token and maps of images (N,3,h,w) of the backbone's input size.

        Raises:
            ValueError: the images have another size.
        """
        if tuple(images.shape[2:]) != self.input_size:
            raise ValueError(
                f"images: expected {_by(self.input_size)} pixels, the input_size of the backbone, got "
                f"{_by(images.shape[2:])}"
            )
        tokens: Tensor = self.network.forward_features(images)
        prefix = getattr(self.network, "num_prefix_tokens", 0)
        return Tokens(tokens[:, :prefix], tokens[:, prefix:].transpose(1, 2).unflatten(2, self.grid))


def timm_backbone(
    name: str, last_stride: int, input_size: tuple[int, int] | None, pretrained: bool, **options: Any
) -> Backbone:
    """Build the network `timm.create_model(name, **options)` without its pooling and classifier.

    Args:
        name: a name of timm, without the prefix "timm:".
        last_stride: 1 changes the last stride of a convolutional network; ignored for networks of patches.
        input_size: (height, width) of the images, for networks with a fixed input size; None: the size that
            timm lists for this name.
        pretrained: load the weights that timm publishes under this name.
        options: keyword arguments of timm's model, for example `drop_path_rate`.

    Raises:
        ImportError, ValueError, FileNotFoundError: see `build_backbone`.
    """
    timm = _timm()
    _check_name(timm, name)
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="", **options)
    except OSError as error:  # includes all network errors and those of huggingface_hub
        raise FileNotFoundError(
            f"weights: those of timm:{name} are neither in the cache of huggingface_hub nor could they be "
            f"downloaded ({error}); pass the path of a file"
        ) from error
    except (TypeError, AssertionError, RuntimeError) as error:
        raise ValueError(f"backbone_options: timm:{name} does not accept {options}: {error}") from error

    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    own_size = tuple(network.pretrained_cfg.get("input_size", (3, 224, 224))[1:])
    size = own_size if input_size is None else input_size
    if patch is None:  # a convolutional network, which accepts any size; one whose halves are exact
        size = (128, 128)
    else:
        _check_patches(name, patch, size)
    if size != own_size and hasattr(network, "set_input_size"):
        network.set_input_size(size)
    features = _trial(name, network, size)
    if features.dim() == 3:
        if patch is None:
            raise ValueError(f"backbone: expected a network that returns maps, got timm:{name}")
        return TokenBackbone(network, size, patch)

    if last_stride == 1 and patch is None:
        keep_size(_last_stage(network))
        before, after = features.shape[-2:], _trial(name, network, size).shape[-2:]
        if tuple(after) != (2 * before[0], 2 * before[1]):
            raise ValueError(f"last_stride: expected 2 for timm:{name}, got 1; its last stride is fixed")
    if isinstance(network, timm.models.ResNet):
        layers = {key: layer for key, layer in network.named_children() if key not in ("global_pool", "fc")}
        return Backbone(layers, network.num_features, split_after="layer3")
    return TimmBackbone(network)


def renamed(backbone: Backbone, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Convert foreign names and sizes in a state dict by timm's own rules for this network.

    timm knows the names of CLIP (OpenAI and OpenCLIP), DINOv2, MAE and others, and resizes position
    embeddings. Names of MMDetection's Swin transformer are converted too. A prefix of all names is removed
    first.
    """
    state, network = timm_swin(state), backbone.original
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    for last, prefix in (("class_embedding", "visual."), ("patch_embed.proj.weight", "")):
        for found in (key.removesuffix(last) for key in state if key.endswith(last)):
            state = {
                prefix + key.removeprefix(found): value
                for key, value in state.items()
                if key.startswith(found)
            }
            converted: Mapping[str, Tensor] = convert(state, network)
            return converted
    return state


def published_head(name: str) -> Tensor | None:
    """The weight of the last linear layer of the network that timm publishes under this name."""
    head = _timm().create_model(name, pretrained=True).get_classifier()
    return head.weight.detach() if isinstance(head, nn.Linear) else None


class _Layers(nn.ModuleList):
    """The modules of a stage; not called."""


def _last_stage(network: Any) -> nn.Module:
    """The modules after the last map of twice the final size, according to timm's `feature_info`."""
    info = list(network.feature_info)
    before = next(each["module"] for each in reversed(info) if each["reduction"] < info[-1]["reduction"])
    names = [name for name, _ in network.named_modules()]
    place = names.index(before)
    return _Layers(
        module
        for name, module in network.named_modules()
        if names.index(name) > place and not name.startswith(f"{before}.")
    )


def _check_name(timm: Any, name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=_NEAR)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"backbone: expected a name of timm {timm.__version__}, got {name!r}{hint}")
    known = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in known:
        raise ValueError(
            f"backbone: expected one of timm's weights for {architecture!r} ({', '.join(known) or 'none'}), "
            f"got {tag!r}"
        )


def _check_patches(name: str, patch: Sequence[int], size: Sequence[int]) -> None:
    if any(side % cell for side, cell in zip(size, patch, strict=True)):
        fits = [max(cell, round(side / cell) * cell) for side, cell in zip(size, patch, strict=True)]
        raise ValueError(
            f"input_size: expected a height and a width that are multiples of {_by(patch)}, the patches of "
            f"timm:{name}, got {_by(size)}; the nearest size is {_by(fits)}"
        )


def _trial(name: str, network: nn.Module, size: Sequence[int]) -> Tensor:
    """The features of one image."""
    image = next(network.parameters()).new_zeros(1, 3, *size)
    try:
        with in_evaluation(network), torch.no_grad():
            features: Tensor = network.forward_features(image)  # type: ignore[operator]
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"input_size: timm:{name} does not accept {_by(size)} pixels: {error}") from error
    if not isinstance(features, Tensor) or features.dim() not in (3, 4):
        raise ValueError(f"backbone: expected a network that returns maps, got timm:{name}")
    return features


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError("backbones of timm need timm: pip install 'vreid-ext[timm]'") from error
    return timm


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
