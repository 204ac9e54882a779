"""The package of a weight file, by the names that its models have in their own code."""

import pytest
import torch

from vreid_ext.weights import read_weights
from vreid_ext.weights.origin import origin_of

RESNET = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
VIT = {"cls_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 16, 16), "blocks.0.attn.qkv.weight": (24, 8)}
SWIN = ("patch_embed.projection.weight", "stages.0.blocks.0.attn.w_msa.qkv.weight")


def named(*names, prefix="", **shapes):
    tensors = {prefix + name: torch.zeros(2) for name in names}
    return tensors | {prefix + name: torch.zeros(shape) for name, shape in shapes.items()}


def shaped(shapes, prefix=""):
    return {prefix + name: torch.zeros(shape) for name, shape in shapes.items()}


CASES = {
    "torchreid, OSNet": (
        {"state_dict": named("conv1.conv.weight", "conv2.0.conv2a.conv1.weight", "fc.0.weight")
         | shaped({"classifier.weight": (751, 4)}), "epoch": 3, "rank1": 0.5},
        ("torchreid", "", 751),
    ),
    "torchreid, ResNet": (
        {"state_dict": named(*RESNET) | shaped({"classifier.weight": (702, 4)})}, ("torchreid", "", 702)
    ),
    "fast-reid": (
        {"model": named(*(f"backbone.{name}" for name in RESNET), "heads.bottleneck.0.weight")
         | shaped({"heads.weight": (575, 4)}), "iteration": 9},
        ("fast-reid", "", 575),
    ),
    "fast-reid, older": (
        {"model": named("backbone.conv1.weight", "heads.bnneck.weight")
         | shaped({"heads.classifier.weight": (10, 4)})},
        ("fast-reid", "", 10),
    ),
    "CLIP-ReID": (
        named("image_encoder.transformer.resblocks.0.ln_1.weight", "prompt_learner.cls_ctx")
        | shaped({"image_encoder.conv1.weight": (8, 3, 16, 16),
                  "image_encoder.positional_embedding": (129, 8),
                  "text_encoder.positional_embedding": (77, 4), "classifier.weight": (751, 8),
                  "classifier_proj.weight": (751, 4)}),
        ("CLIP-ReID", "", 751),
    ),
    "CLIP": (named("visual.class_embedding", "token_embedding.weight"), ("OpenAI CLIP", "", None)),
    "SOLIDER, pre-trained": (
        {"student": named(*SWIN, prefix="module.backbone."), "teacher": named(*SWIN, prefix="backbone.")},
        ("SOLIDER (Swin of MMDetection)", "", None),
    ),
    "SOLIDER, fine-tuned": (
        named("base.semantic_embed_w.0.weight", *(f"base.{name}" for name in SWIN)), ("SOLIDER", "", None)
    ),
    "TransReID": (
        shaped({f"base.{name}": shape for name, shape in VIT.items()}
               | {"base.pos_embed": (1, 129, 8), "classifier.weight": (751, 8)}),
        ("TransReID", "", 751),
    ),
    "timm": (shaped(VIT | {"pos_embed": (1, 197, 8), "head.weight": (1000, 8)}), ("timm", "", 1000)),
    "Lightning": (
        {"pytorch-lightning_version": "2.4.0", "epoch": 1, "state_dict": shaped(VIT, prefix="model.")},
        ("Lightning, timm", "model.", None),
    ),
    "torchvision": (
        named(*RESNET, prefix="module.") | shaped({"module.fc.weight": (1000, 4)}),
        ("torchvision", "module.", 1000),
    ),
    "vreid_ext": (
        named(*(f"backbone.{name}" for name in RESNET)) | shaped({"classifier.weight": (625, 4)}),
        ("vreid_ext", "", 625),
    ),
    "plain": (named("encoder.0.weight"), ("plain", "", None)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_package_prefix_and_classifier(case, tmp_path):
    content, (package, prefix, classes) = CASES[case]
    torch.save(content, tmp_path / "net.pth")
    origin = origin_of(read_weights(tmp_path / "net.pth"))
    assert (origin.package, origin.prefix) == (package, prefix)
    assert (origin.classifier and origin.classifier.classes) == classes
    assert bool(origin.evidence) == (package != "plain")


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (VIT | {"pos_embed": (1, 129, 8)}, (256, 128, 16)),
        (VIT | {"pos_embed": (1, 211, 8)}, (256, 128, 12)),  # TransReID with overlapping patches
        (VIT | {"pos_embed": (1, 197, 8)}, (224, 224, 16)),
        (VIT | {"pos_embed": (1, 401, 8)}, (320, 320, 16)),
        ({"patch_embed.proj.weight": (8, 3, 14, 14), "pos_embed": (1, 256, 8)}, (224, 224, 14)),
    ],
)
def test_position_embeddings_tell_the_input(shapes, expected, tmp_path):
    torch.save(shaped(shapes), tmp_path / "net.pth")
    assert expected in origin_of(read_weights(tmp_path / "net.pth")).inputs


def test_the_text_encoder_tells_no_input(tmp_path):
    torch.save(
        shaped({"positional_embedding": (77, 8), "visual.class_embedding": (8,)}), tmp_path / "net.pth"
    )
    assert origin_of(read_weights(tmp_path / "net.pth")).inputs == []
