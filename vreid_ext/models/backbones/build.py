"""Construction of backbones by name, with their initial weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vreid_ext._options import check_options
from vreid_ext.models.backbones import from_timm
from vreid_ext.models.backbones.base import Backbone
from vreid_ext.models.backbones.registry import backbones, published
from vreid_ext.weights import expected_tensors, matched, read_tensors


def build_backbone(
    name: str,
    weights: str | Path = "none",
    last_stride: int = 1,
    *,
    input_size: Sequence[int] | None = None,
    **options: Any,
) -> Backbone:
    """Build an image network without its pooling and classifier.

    Args:
        name: a name of `backbone_names`, or "timm:NAME" for a model of timm that returns maps or tokens.
        weights: "none" for random initialization; "imagenet" for published weights, cached or downloaded:
            torchvision's (version 1), or those that timm lists under this name; or a `.safetensors` file, a
            `.pth` / `.pt` state dict or checkpoint, which is loaded with `weights_only=True`, a folder with
            one of these, or `hf:OWNER/NAME`; see `weights.read_weights`. Tensors are matched by name,
            ignoring a common prefix (for example `backbone.` in a checkpoint of this package). If the names
            differ, tensors are matched by order, with a warning, provided that all shapes and the last
            components of all names agree. Additional tensors, such as those of a classifier, are ignored.
            For networks of timm, foreign names (such as those of CLIP) are converted and position embeddings
            resized by timm's rules.
        last_stride: stride of the last stage. 1 gives maps of h/16 x w/16, as is usual in re-identification
            since Sun et al. 2018 (and in STA); 2, the value of torchvision, gives h/32 x w/32. GoogLeNet
            supports only a stride of 2. OSNet (h/16 x w/16) and networks of patches (ViT, Swin) ignore it.
        input_size: (height, width) of the images, for networks with position embeddings; None: the size that
            timm lists for this name. Other networks accept any size.
        options: further arguments of the network, for a model of timm those of `timm.create_model`, for
            example `drop_path_rate=0.1`.

    Raises:
        ImportError: torchvision or timm is not installed.
        FileNotFoundError: no such file. If the download for "imagenet" fails, the message names the URL and
            the path at which the file is expected.
        ValueError: unknown name (the message suggests the nearest ones), option, stride or size, or weights
            that do not match.
        TypeError: an option has the wrong type.
    """
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride: expected 1 or 2, got {last_stride!r}")
    if name.startswith(from_timm.PREFIX):
        pretrained, size = weights == "imagenet", None if input_size is None else _size(input_size)
        backbone = from_timm.timm_backbone(
            name.removeprefix(from_timm.PREFIX), last_stride, size, pretrained, **options
        )
        if pretrained:
            return backbone
    else:
        factory = backbones.factory(name)
        check_options(f"backbone {name!r}", factory, options)
        backbone = factory(last_stride, **options)
    if weights == "imagenet":
        if name not in published:
            raise ValueError(f"weights: expected 'none' or a file for {name}, got 'imagenet'")
        _load(backbone, published[name](), source=f"ImageNet {name}")
    elif weights != "none":
        _load(backbone, from_timm.renamed(backbone, read_tensors(weights)), source=str(weights))
    return backbone


def resolve_backbone(
    backbone: str | nn.Module,
    weights: str | Path,
    last_stride: int,
    input_size: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, int]:
    """Turn the `backbone` argument of a model into a module and its number of output channels C.

    Args:
        backbone: a name for `build_backbone`, or a module (N,3,h,w) -> (N,C,H,W) with an `out_channels`.
        weights, last_stride, input_size, options: passed to `build_backbone`; ignored if `backbone` is a
            module.

    Raises:
        ValueError: the module has no int `out_channels`. For a name, see also `build_backbone`.
    """
    module = (
        build_backbone(backbone, weights, last_stride, input_size=input_size, **(options or {}))
        if isinstance(backbone, str)
        else backbone
    )
    channels = getattr(module, "out_channels", None)
    if not isinstance(channels, int):
        got = type(module).__name__
        raise ValueError(f"backbone: expected a name or a module with an int out_channels, got {got}")
    return module, channels


def clip_projection(name: str, backbone: Backbone, weights: str | Path) -> Tensor | None:
    """The projection (D,C) to CLIP's space of text and images in the weights of a backbone; None without one.

    Args:
        name, weights: the arguments of `build_backbone` from which the backbone was built.
    """
    if weights == "none" or not name.startswith(from_timm.PREFIX):
        return None
    if weights == "imagenet":
        return from_timm.published_head(name.removeprefix(from_timm.PREFIX))
    return from_timm.renamed(backbone, read_tensors(Path(weights))).get("head.weight")


def _size(input_size: Sequence[int]) -> tuple[int, int]:
    if len(input_size) != 2 or not all(isinstance(side, int) and side > 0 for side in input_size):
        raise ValueError(f"input_size: expected (height, width) in pixels, got {input_size!r}")
    return input_size[0], input_size[1]


def _load(backbone: Backbone, state: Mapping[str, Tensor], source: str) -> None:
    network = backbone.original
    try:
        chosen = matched(expected_tensors(network), state, source)
    except ValueError as error:
        from vreid_ext.models.fits import fitting_backbones  # which builds all backbones

        fitting = fitting_backbones(state)
        hint = f"they fit backbone={fitting[0]!r}" if fitting else "they fit no other backbone"
        raise ValueError(f"{error}; {hint}") from error
    # Not strict: the batch counters are missing, as `read_tensors` drops them.
    network.load_state_dict(chosen, strict=False)
