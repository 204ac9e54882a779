"""Swin transformers with MMDetection's names, as in SOLIDER, in timm."""

import pytest
import torch

from vreid_ext.models.fits import backbone_fits, timm_name
from vreid_ext.weights.swin import timm_swin


class Joining(torch.nn.Module):
    """MMDetection's PatchMerging: nn.Unfold, LayerNorm, Linear."""

    def __init__(self, channels):
        super().__init__()
        self.norm = torch.nn.LayerNorm(4 * channels)
        self.reduction = torch.nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, maps):  # (N,C,H,W)
        rows = torch.nn.functional.unfold(maps, 2, stride=2).transpose(1, 2)
        return self.reduction(self.norm(rows))


def test_the_joining_layer_gives_the_same_rows():
    swin = pytest.importorskip("timm.models.swin_transformer", reason="needs the extra [timm]")
    ours, timms = Joining(6), swin.PatchMerging(6)
    torch.nn.init.normal_(ours.norm.weight)
    torch.nn.init.normal_(ours.norm.bias)
    state = {f"stages.0.downsample.{key}": value for key, value in ours.state_dict().items()}
    state |= {"stages.0.blocks.0.attn.w_msa.qkv.weight": torch.zeros(1)}
    renamed = timm_swin(state)
    prefix = "layers.1.downsample."
    timms.load_state_dict({k.removeprefix(prefix): v for k, v in renamed.items() if k.startswith(prefix)})
    maps = torch.randn(2, 6, 8, 4)
    expected = ours(maps).view(2, 4, 2, 12)
    torch.testing.assert_close(timms(maps.permute(0, 2, 3, 1)), expected)


def mmdetection(name):
    """The inverse of the names, written down from SOLIDER's code."""
    for theirs, timms in (
        ("patch_embed.projection.", "patch_embed.proj."),
        (".attn.w_msa.", ".attn."),
        (".ffn.layers.0.0.", ".mlp.fc1."),
        (".ffn.layers.1.", ".mlp.fc2."),
    ):
        name = name.replace(timms, theirs)
    if ".downsample." in name:
        stage = int(name.split(".")[1])
        name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
    return "norm3." + name[5:] if name.startswith("norm.") else name.replace("layers.", "stages.", 1)


def test_a_file_of_solider_fits_timms_network():
    timm = pytest.importorskip("timm", reason="needs the extra [timm]")
    with torch.device("meta"):
        state = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0).state_dict()
    theirs = {f"base.{mmdetection(key)}": torch.empty_like(value) for key, value in state.items()}
    theirs |= {"base.semantic_embed_w.0.weight": torch.zeros(1), "classifier.weight": torch.zeros(751, 768)}
    assert timm_name(theirs) == "timm:swin_tiny_patch4_window7_224"
    name, fit = next(iter(backbone_fits(theirs).items()))
    assert name == "timm:swin_tiny_patch4_window7_224"
    assert fit.complete


def test_a_file_of_transreid_fits_timms_network():
    timm = pytest.importorskip("timm", reason="needs the extra [timm]")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    state = {f"base.{key}": value for key, value in model.state_dict().items()}
    state |= {"base.pos_embed": torch.zeros(1, 129, 192), "base.sie_embed": torch.zeros(6, 1, 192)}
    name, fit = next(iter(backbone_fits(state).items()))
    assert (name, fit.complete) == ("timm:vit_tiny_patch16_224", True)


def test_other_files_are_left_as_they_are():
    tensors = {"conv1.weight": torch.zeros(8, 3, 7, 7)}
    assert timm_swin(tensors) is tensors
    assert timm_name(tensors) is None
