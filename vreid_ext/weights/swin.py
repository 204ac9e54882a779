"""Names of Swin transformers: from MMDetection's, which SOLIDER uses, to timm's."""

import re
from collections.abc import Mapping

from torch import Tensor

_SIGN = re.compile(r"(.*?)stages\.\d+\.blocks\.\d+\.attn\.w_msa\.")
_NAMES = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"^norm3\.", "norm."),
)


def timm_swin(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors of a Swin transformer with the names and the order of channels of timm.

    MMDetection joins 2 x 2 patches channel by channel (`nn.Unfold`), timm patch by patch, so the weights of
    the joining layers are permuted. timm counts a joining layer to the stage after it. SOLIDER's semantic
    embeddings and the classifier are left out, as are the norms of stages before the last.

    Returns:
        `tensors` itself if they are of no such network.

    Source: github.com/tinyvision/SOLIDER-REID, model/backbones/swin_transformer.py (`swin_converter`, whose
    inverse this is); github.com/huggingface/pytorch-image-models, timm/models/swin_transformer.py.
    """
    found = next(filter(None, map(_SIGN.match, tensors)), None)
    if found is None:
        return tensors
    renamed = {}
    for name, value in tensors.items():
        own = name.removeprefix(found[1])
        if not name.startswith(found[1]) or not own.startswith(("patch_embed.", "stages.", "norm3.")):
            continue
        if own.endswith("relative_position_index"):
            continue  # a constant of the network
        if joining := re.match(r"stages\.(\d+)\.downsample\.(\w+)\.", own):
            number, layer = int(joining[1]) + 1, joining[2]
            renamed[f"layers.{number}.{own.split('.', 2)[2]}"] = _by_patch(value)
            assert layer in ("norm", "reduction")
            continue
        for pattern, replacement in _NAMES:
            own = re.sub(pattern, replacement, own)
        renamed[re.sub(r"^stages\.", "layers.", own)] = value
    return renamed


def _by_patch(value: Tensor) -> Tensor:
    """Reorder the inputs (..., 4C) of a joining layer from channel, row, column to column, row, channel."""
    grid = value.unflatten(-1, (-1, 2, 2))
    return grid.movedim(-3, -1).transpose(-3, -2).flatten(-3)
