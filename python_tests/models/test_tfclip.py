"""TF-CLIP: its parts by their formulas, its losses, its memory, its weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vreid_ext import engine
from vreid_ext.engine.build import model_of
from vreid_ext.engine.identity_memory import fill_memory
from vreid_ext.models import TFCLIP, build_model
from vreid_ext.models.tfclip import Attention, TemporalMemoryDiffusion

timm = pytest.importorskip("timm")

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 2}
NAME = "timm:vit_tiny_patch16_224"


def tiny(**options):
    options = {"backbone": NAME, "backbone_options": VIT, "input_size": (64, 32), "projected": 16} | options
    return build_model("tfclip", 5, **options)


def clips(b=4, t=3):
    return torch.rand(b, t, 3, 64, 32)


def test_attention_is_torchs():
    torch.manual_seed(0)
    layer, expected = Attention(128), nn.MultiheadAttention(128, 2, batch_first=True)
    expected.in_proj_weight.data = torch.cat([each.weight for each in (layer.query, layer.key, layer.value)])
    expected.in_proj_bias.data = torch.cat([each.bias for each in (layer.query, layer.key, layer.value)])
    expected.out_proj.weight.data, expected.out_proj.bias.data = layer.out.weight, layer.out.bias
    x, context = torch.rand(2, 5, 128), torch.rand(2, 7, 128)
    mask = torch.rand(2, 7) > 0.3
    torch.testing.assert_close(
        layer(x, context, mask), expected(x, context, context, key_padding_mask=~mask)[0]
    )


def test_diffusion_is_the_formula():
    torch.manual_seed(0)
    layer = TemporalMemoryDiffusion(48)
    x = torch.rand(2, 3, 9, 48)
    m = layer.memory(x.mean(2))
    m = m + layer.over_frames(layer.norms[0](m))
    rows = []
    for b in range(2):
        for t in range(3):
            z = torch.cat([x[b, t], m[b, t, None]])[None]
            z = z + layer.over_tokens(layer.norms[1](z))
            z = z + layer.mlp(layer.norms[2](z))
            rows.append(z[0].mean(0))
    torch.testing.assert_close(layer(x), torch.stack(rows).view(2, 3, 48))


def test_padding_frames_change_nothing():
    torch.manual_seed(0)
    model = tiny().eval()
    short = clips(2, 2)
    padded = torch.cat([short, torch.rand(2, 1, 3, 64, 32)], 1)
    valid = torch.tensor([[True, True, False]] * 2)
    with torch.no_grad():
        torch.testing.assert_close(model(padded, valid), model(short))
        torch.testing.assert_close(model.describe(padded, valid), model.describe(short))
    model.train()
    label = torch.tensor([0, 1])
    model.prompt.eval()
    one, other = model(padded, valid, label), model(short, None, label)
    for name, value in other.extras.items():
        torch.testing.assert_close(one.extras[name], value)


def test_feature_is_the_three_means_and_after_the_necks_two():
    model = tiny().eval()
    x = clips(2)
    with torch.no_grad():
        tokens = model.backbone.tokens(x.flatten(0, 1))
        v = tokens.prefix[:, 0].view(2, 3, 48).mean(1)
        p = model.projection(tokens.prefix[:, 0]).view(2, 3, 16).mean(1)
        feature = model(x)
        assert feature.shape == (2, model.feature_dim) == (2, 48 + 16 + 48)
        torch.testing.assert_close(feature[:, :64], torch.cat([v, p], 1))
        model.test_neck = "after"
        torch.testing.assert_close(
            model(x), torch.cat([model.necks["class"](v), model.necks["projected"](p)], 1)
        )


def test_logits_of_the_memory():
    torch.manual_seed(0)
    model = tiny(label_smoothing=0.0)
    model.memory.normal_()
    model.prompt.eval()
    x, label = clips(4), torch.tensor([0, 0, 3, 3])
    output = model(x, label=label)
    tokens = model._tokens(x)
    p = model.projection(tokens[:, :, 0]).mean(1)
    adapted = model.memory + model.prompt(model.memory.expand(4, -1, -1), model.projection(tokens).mean(1))
    logits = torch.stack([p[b] @ adapted[b].T for b in range(4)])
    torch.testing.assert_close(output.extras["memory"], F.cross_entropy(logits, label))


def test_losses_reach_every_parameter_and_the_temporal_module_not_the_encoder():
    model = tiny()
    output = model(clips(), label=torch.tensor([0, 0, 1, 1]))
    assert set(output.extras) == {"branch_softmax", "branch_triplet", "frame_softmax", "memory"}
    (output.extras["frame_softmax"]).backward(retain_graph=True)
    assert all(value.grad is None for value in model.backbone.parameters())
    total = output.feature.square().sum() + output.logits.square().sum() + sum(output.extras.values())
    total.backward()
    assert [
        name for name, value in model.named_parameters() if value.requires_grad and value.grad is None
    ] == []


def test_switches_of_the_ablation():
    output = tiny(memory=False, temporal=False)(clips(), label=torch.tensor([0, 0, 1, 1]))
    assert set(output.extras) == {"branch_softmax", "branch_triplet"}
    assert tiny(memory=False, temporal=False).feature_dim == 64


def test_the_memory_is_the_mean_of_the_tracklets_of_an_identity():
    model = tiny()
    features, labels = torch.rand(7, 16), torch.tensor([0, 1, 2, 3, 4, 0, 0])
    model.remember(features, labels)
    torch.testing.assert_close(model.memory[0], features[[0, 5, 6]].mean(0))
    torch.testing.assert_close(model.memory[3], features[3])
    with pytest.raises(ValueError, match=r"^labels: expected each of 0 to 4, got \[0, 1\]"):
        model.remember(features[:2], labels[:2])


def test_clips_projection_is_read_from_a_file(tmp_path):
    network = timm.create_model("vit_tiny_patch16_224", num_classes=16, **VIT)
    torch.save(network.state_dict(), tmp_path / "clip.pth")
    assert torch.equal(tiny(weights=tmp_path / "clip.pth").projection.weight, network.head.weight)
    other = tiny(weights=tmp_path / "clip.pth", projected=8)  # another head, such as that of a classifier
    assert other.projection.weight.shape == (8, 48)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^backbone: expected .* with a class token .*resnet18"):
        TFCLIP(3, backbone="resnet18")
    with pytest.raises(ValueError, match=r"^test_neck: expected 'before' or 'after', got 'middle'"):
        tiny(test_neck="middle")
    with pytest.raises(ValueError, match=r"^label: expected identities"):
        tiny()(clips())


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    from vreid_ext.data.synth import synthesize

    folder = tmp_path_factory.mktemp("data") / "mars"
    return synthesize(folder, ids=8, cameras=2, tracklets=2, frames=5, size=(64, 32))


def test_the_training_fills_the_memory_once(people, tmp_path):
    from vreid_ext.engine.build import dataset_of
    from vreid_ext.engine.open import open_checkpoint
    from vreid_ext.engine.seeds import seed_of

    overrides = [
        f"dataset.root={people}",
        "batch.p=2",
        "batch.k=2",
        "train.epochs=2",
        "train.checkpoint_every=1",
    ]
    recipe = engine.load_recipe("synth_tfclip", overrides)
    recipe.model["backbone_options"] = {"depth": 1, "embed_dim": 48, "num_heads": 2}
    result = engine.train(recipe, tmp_path / "run", quiet=True)
    assert 0 < result["rows"][0]["mAP"] <= 1
    torch.manual_seed(seed_of(recipe.seed))
    data = dataset_of(recipe.dataset)
    fresh = model_of(recipe, data.num_train_pids)
    fill_memory(fresh, data, recipe, torch.device("cpu"))
    trained = open_checkpoint(tmp_path / "run")[0]
    assert fresh.memory.abs().sum() > 0
    torch.testing.assert_close(trained.memory, fresh.memory)
    assert not torch.equal(trained.projection.weight, fresh.projection.weight)
