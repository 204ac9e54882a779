"""Backbones of timm: maps of convolutional networks, tokens of ViTs, their weights and their errors."""

import pytest
import torch
from torch import nn

from vreid_ext.engine import load_recipe
from vreid_ext.engine.build import model_of
from vreid_ext.models import STAL, TokenBackbone, build_backbone

timm = pytest.importorskip("timm")

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 2}  # tiny
NAME = "timm:vit_tiny_patch16_224"


def vit(size=(64, 32), weights="none", **options):
    return build_backbone(NAME, weights, input_size=size, **VIT, **options).eval()


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050", "regnety_002"])
def test_maps_of_convolutional_networks(name, last_stride):
    if name == "convnext_atto" and last_stride == 1:
        with pytest.raises(ValueError, match=r"^last_stride: expected 2 for timm:convnext_atto, got 1"):
            build_backbone(f"timm:{name}", last_stride=1)
        return
    backbone = build_backbone(f"timm:{name}", last_stride=last_stride).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(2, 3, 128, 64))
    size = (8, 4) if last_stride == 1 else (4, 2)
    assert maps.shape == (2, backbone.out_channels, *size)


def test_maps_are_timms():
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=0, global_pool="").eval()
    torch.manual_seed(0)
    backbone = build_backbone("timm:resnet10t", last_stride=2).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), network.forward_features(images))


def test_a_network_with_channels_last_maps():
    options = {"depths": (1, 1), "embed_dim": 16, "num_heads": (2, 2), "window_size": 4}
    backbone = build_backbone("timm:swin_tiny_patch4_window7_224", last_stride=2, **options).eval()
    with torch.no_grad():
        assert backbone(torch.rand(1, 3, 224, 224)).shape == (1, 32, 28, 28)


def test_tokens_and_maps_of_a_vit():
    backbone = vit()
    images = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        tokens, expected = backbone.tokens(images), backbone.network.forward_features(images)
    assert isinstance(backbone, TokenBackbone)
    assert tokens.prefix.shape == (2, 1, 48)
    assert tokens.maps.shape == (2, 48, 4, 2)
    torch.testing.assert_close(tokens.prefix[:, 0], expected[:, 0])
    # Row 1, column 0 of the grid is the third patch; the class token is the first token.
    torch.testing.assert_close(tokens.maps[:, :, 1, 0], expected[:, 3])


def test_position_embeddings_of_a_file_are_resized(tmp_path):
    network = timm.create_model("vit_tiny_patch16_224", num_classes=7, **VIT).eval()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    backbone = vit((64, 32), tmp_path / "net.pth")
    assert backbone.network.pos_embed.shape == (1, 1 + 8, 48)
    network.set_input_size((64, 32))
    images = torch.rand(1, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone.network(images), network.forward_features(images))


def test_a_vit_of_a_checkpoint_for_re_identification(tmp_path):
    state = {f"base.{key}": value for key, value in vit((64, 32)).network.state_dict().items()}
    torch.save(state | {"classifier.weight": torch.zeros(3, 48)}, tmp_path / "transreid.pth")
    backbone = vit((64, 32), tmp_path / "transreid.pth")
    assert all(
        torch.equal(value, state[f"base.{key}"]) for key, value in backbone.network.state_dict().items()
    )


@pytest.mark.parametrize("prefix", ["visual.", "image_encoder."])
def test_names_of_clip(prefix, tmp_path):
    name, size = "timm:vit_base_patch16_clip_quickgelu_224", (64, 32)
    build = {"input_size": size, **VIT}
    torch.manual_seed(0)
    expected = build_backbone(name, **build).eval()
    torch.save(names_of_clip(expected.network.state_dict(), prefix), tmp_path / "clip.pt")
    loaded = build_backbone(name, tmp_path / "clip.pt", **build).eval()
    images = torch.rand(1, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), expected(images))


def names_of_clip(state, prefix):
    """The state dict of timm's CLIP ViT under the names of OpenAI's, with a text encoder beside it."""
    names = [
        ("patch_embed.proj", "conv1"), ("norm_pre", "ln_pre"), ("blocks.", "transformer.resblocks."),
        ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"), ("norm1", "ln_1"), ("norm2", "ln_2"),
        ("pos_embed", "positional_embedding"), ("cls_token", "class_embedding"),
    ]  # fmt: skip
    renamed = {"token_embedding.weight": torch.zeros(5, 5), f"{prefix}proj": torch.zeros(48, 32)}
    for key, value in state.items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        key = "ln_post" + key.removeprefix("norm") if key.startswith("norm.") else key
        renamed[prefix + key] = value.flatten() if key == "class_embedding" else value
        if key == "positional_embedding":
            renamed[prefix + key] = value[0]
    return renamed


def test_unknown_names_suggest_near_ones():
    with pytest.raises(
        ValueError, match=r"^backbone: expected a name of timm .*, got 'resnet5o'; did you mean"
    ):
        build_backbone("timm:resnet5o")
    with pytest.raises(ValueError, match=r"^backbone: expected one of timm's weights .* got 'nonsense'"):
        build_backbone("timm:resnet18.nonsense")


def test_sizes_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"^input_size: expected .* multiples of 16 x 16.*nearest .* 256 x 128$"
    ):
        build_backbone(NAME, input_size=(250, 120), **VIT)
    with pytest.raises(ValueError, match=r"^images: expected 64 x 32 pixels, .* got 64 x 64"):
        vit()(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"^input_size: expected \(height, width\)"):
        build_backbone(NAME, input_size=[32])


def test_unknown_options_are_named():
    with pytest.raises(ValueError, match=r"^backbone_options: timm:.* does not accept .*'droppath'"):
        build_backbone(NAME, droppath=0.1)


def test_drop_path():
    rates = [module.drop_prob for module in vit(drop_path_rate=0.2).modules() if hasattr(module, "drop_prob")]
    assert max(rates) == pytest.approx(0.2)


def test_depths_of_a_vit_count_its_blocks():
    depths = vit().depths()
    assert depths["network.cls_token"] == depths["network.patch_embed.proj.weight"] == 0
    assert depths["network.blocks.0.norm1.weight"] == 1
    assert depths["network.blocks.1.mlp.fc1.bias"] == 2


def test_stal_names_a_backbone_that_it_cannot_split():
    with pytest.raises(ValueError, match=f"^backbone: expected one that can be split .* got '{NAME}'"):
        STAL(3, backbone=NAME, backbone_options=VIT, input_size=(64, 32))


def test_the_recipes_input_size_reaches_the_backbone():
    recipe = load_recipe("synth_avg", [f"model.backbone={NAME}", "input.height=96", "input.width=32"])
    recipe.model["backbone_options"] = VIT
    backbone = model_of(recipe, 3).backbone
    assert isinstance(backbone, TokenBackbone)
    assert backbone.grid == (6, 2)


def test_without_timm_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'vreid-ext\[timm\]'"):
        build_backbone(NAME)


def test_published_weights_offline_name_the_way_out(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refused)
    with pytest.raises(FileNotFoundError, match=r"^weights: those of timm:resnet10t.c3_in1k .*no route"):
        build_backbone("timm:resnet10t.c3_in1k", "imagenet")


def test_maps_train():
    backbone = build_backbone(NAME, input_size=(64, 32), **VIT).train()
    backbone(torch.rand(2, 3, 64, 32)).square().mean().backward()
    assert all(value.grad is not None for value in backbone.parameters())
    assert isinstance(backbone.network.head, nn.Identity)
