"""Recognizes which package wrote a weight file, and what the tensors tell about the network."""

import re
from collections.abc import Iterable, Iterator, Mapping
from math import isqrt
from typing import NamedTuple

from torch import Tensor

from vreid_ext.weights.read import WeightFile

# Prefixes of wrappers around a whole model; they are removed before the names are looked at.
_WRAPPERS = ("module.", "model.", "_orig_mod.")
# Package -> names that only its models have. The first rule with a name that matches is used.
_RULES = (
    ("fast-reid", r"heads\.(bottleneck\.\d+\.|weight$|classifier\.|bnneck\.)"),
    ("CLIP-ReID", r"(prompt_learner|text_encoder|image_encoder)\."),
    ("OpenAI CLIP", r"visual\.(class_embedding|attnpool\.)"),
    ("SOLIDER", r"(.*\.)?semantic_embed_w\."),
    ("SOLIDER (Swin of MMDetection)", r"(.*\.)?stages\.0\.blocks\.0\.attn\.w_msa\."),
    ("TransReID", r"(base\.(cls_token|pos_embed|sie_embed)$|b1\.0\.norm1|sie_embed$)"),
    ("torchreid", r"conv2\.0\.(conv2a|conv2\.0|gate)\."),
    ("timm", r"(.*\.)?(blocks|layers\.0\.blocks)\.0\.attn\.qkv\."),
    ("timm", r"(conv_stem|stem\.conv|stem\.0)\.weight$"),
)
# Names of a classifier, best first, and the entries of a checkpoint of Lightning.
_CLASSIFIERS = ("classifier.weight", "heads.weight", "heads.classifier.weight", "head.weight", "fc.weight")
_LIGHTNING = "pytorch-lightning_version"
# Input sizes (height, width) and strides that are common in re-identification and for ImageNet.
_SIZES = ((256, 128), (384, 128), (224, 224), (384, 384), (256, 256), (224, 112), (384, 192), (288, 144))
_STRIDES = (16, 14, 12, 8, 32, 11)


class Classifier(NamedTuple):
    """name: of its weight; classes: number of training identities, or of ImageNet's classes."""

    name: str
    classes: int


class Origin(NamedTuple):
    """What a weight file is.

    Attributes:
        package: the package whose models have such names, or "plain" if the names belong to none.
        evidence: the tensor or the entry that decides it, or "".
        prefix: what all names have in front, for example "module.".
        classifier: the classifier, or None.
        inputs: input sizes (height, width, stride of the patches) that agree with the number of position
            embeddings; empty if the file has none.
    """

    package: str
    evidence: str
    prefix: str
    classifier: Classifier | None
    inputs: list[tuple[int, int, int]]


def origin_of(file: WeightFile) -> Origin:
    """Recognize a weight file by the names of its tensors and the entries of the checkpoint."""
    prefix = _prefix(file.tensors)
    names = [name.removeprefix(prefix) for name in file.tensors]
    package, evidence = _package(file, names)
    return Origin(package, evidence, prefix, _classifier(file.tensors), list(input_sizes(file.tensors)))


def _package(file: WeightFile, names: list[str]) -> tuple[str, str]:
    if _LIGHTNING in file.entries:
        inner = _by_rules(names)
        return (f"Lightning, {inner[0]}" if inner else "Lightning"), _LIGHTNING
    if found := _by_rules(names):
        return found
    if "layer4.0.conv1.weight" in names and "classifier.weight" in names:
        return "torchreid", "classifier.weight"
    if {"layer4.0.conv1.weight", "fc.weight"} <= set(names) or "features.0.0.weight" in names:
        return "torchvision", next(name for name in names if name in ("fc.weight", "features.0.0.weight"))
    if "backbone.layer4.0.conv1.weight" in names or "backbone.features.0.0.weight" in names:
        return "vreid_ext", next(name for name in names if name.startswith("backbone."))
    return "plain", ""


def _by_rules(names: list[str]) -> tuple[str, str] | None:
    for package, pattern in _RULES:
        matches = re.compile(pattern).match
        if found := next(filter(matches, names), None):
            return package, found
    return None


def _prefix(names: Iterable[str]) -> str:
    """The wrappers that all names begin with."""
    prefix, rest = "", list(names)
    while found := next((each for each in _WRAPPERS if all(name.startswith(each) for name in rest)), None):
        prefix, rest = prefix + found, [name.removeprefix(found) for name in rest]
    return prefix


def _classifier(tensors: Mapping[str, Tensor]) -> Classifier | None:
    for ending in _CLASSIFIERS:
        for name, value in tensors.items():
            if (name == ending or name.endswith(f".{ending}")) and value.dim() == 2:
                return Classifier(name, value.shape[0])
    return None


def input_sizes(tensors: Mapping[str, Tensor]) -> Iterator[tuple[int, int, int]]:
    """Input sizes for which the numbers of patches and of position embeddings agree."""
    for name, value in tensors.items():
        kind = name.rpartition(".")[2]
        tokens = value.shape[-2] if value.dim() in (2, 3) else 0
        if kind not in ("pos_embed", "positional_embedding") or "attnpool" in name or not tokens:
            continue
        patch = _patch(tensors, name)
        if patch is None:  # the text encoder of CLIP has position embeddings too
            continue
        counts = {tokens - 1, tokens} if patch else set()
        found = [
            (height, width, stride)
            for height, width in _SIZES
            for stride in dict.fromkeys((patch, *_STRIDES))
            if stride <= patch
            and ((height - patch) // stride + 1) * ((width - patch) // stride + 1) in counts
        ]
        if not found and isqrt(tokens - 1) ** 2 == tokens - 1:
            side = isqrt(tokens - 1) * patch
            found = [(side, side, patch)]
        yield from found
        return


def _patch(tensors: Mapping[str, Tensor], name: str) -> int | None:
    """Side of the patches of the encoder with these position embeddings; None if there are none."""
    before = name.rpartition(".")[0]
    for kernel in ("patch_embed.proj.weight", "patch_embed.projection.weight", "conv1.weight"):
        value = tensors.get(f"{before}.{kernel}" if before else kernel)
        if value is not None and value.dim() == 4 and value.shape[2] == value.shape[3]:
            return value.shape[2]
    return None
