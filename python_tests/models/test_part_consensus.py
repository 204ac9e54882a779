import pytest
import torch
from torch import nn

from vreid_ext.models import PartConsensus
from vreid_ext.nn import ConsensusPooling


class Maps(nn.Module):
    """A backbone with maps of 8 x 4 cells."""

    out_channels = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, self.out_channels, 4, stride=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = PartConsensus(5, parts=4, part_dim=3, backbone=Maps())
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture
def clips():
    return torch.rand(2, 4, 3, 32, 16, generator=torch.Generator().manual_seed(1))


def test_feature_is_the_formula(model, clips):
    model.eval()
    with torch.no_grad():
        feature = model(clips)
        maps = model.backbone(clips.flatten(0, 1)).unflatten(0, (2, 4))
        scores = ConsensusPooling(4)(maps, space=model.bn).scores
        for b in range(2):
            blocks = []
            for k in range(4):
                means = [maps[b, t, :, 2 * k : 2 * k + 2].mean((1, 2)) for t in range(4)]
                blocks.append(sum(scores[b, t, k] * mean for t, mean in enumerate(means)))
            whole = model.bn(torch.stack(blocks).mean(0)[None])[0]
            parts = torch.cat(
                [layer(block[None])[0] for layer, block in zip(model.parts, blocks, strict=True)]
            )
            wanted = torch.cat([whole / whole.norm(), parts / parts.norm()])
            torch.testing.assert_close(feature[b], wanted)
    assert feature.shape == (2, model.feature_dim) == (2, 6 + 4 * 3)


def test_every_frame_is_a_sample_and_every_part_has_its_own_loss(model, clips):
    label = torch.tensor([1, 3])
    output = model.train()(clips, label=label)
    assert output.logits.shape == (8, 5)
    maps = model.backbone(clips.flatten(0, 1))
    torch.testing.assert_close(output.feature, maps.mean((2, 3)))
    wanted = 0.0
    for k, (layer, logits) in enumerate(zip(model.parts, model.part_classifiers, strict=True)):
        part = layer(maps[:, :, 2 * k : 2 * k + 2].mean((2, 3)))
        wanted += nn.functional.cross_entropy(logits(part), label.repeat_interleave(4))
    torch.testing.assert_close(output.extras["part_softmax"], wanted)
    output.extras["part_softmax"].backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.parts.parameters() if weight.requires_grad)


def test_padding_frames_change_nothing(model, clips):
    model.eval()
    padded = torch.cat([clips, torch.full_like(clips[:, :2], torch.nan)], 1)
    valid = torch.tensor([[True] * 4 + [False] * 2] * 2)
    with torch.no_grad():
        torch.testing.assert_close(model(padded, valid), model(clips))


def test_weights_of_a_covered_frame_are_small(model, clips):
    clips = clips[:1, :1].repeat(1, 4, 1, 1, 1)
    clips[0, 2, :, :16] = 5 * torch.rand(3, 16, 16)
    model.consensus.sharpness = 50.0
    scores = model.attend(clips).scores[0]
    assert scores[2, :2].max() < scores[[0, 1, 3], :2].min()


def test_errors(model, clips):
    with pytest.raises(ValueError, match="label: expected identities"):
        model.train()(clips)
    with pytest.raises(ValueError, match="valid: expected None in training"):
        model.train()(clips, torch.ones(2, 4, dtype=torch.bool), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="num_classes: expected"):
        PartConsensus(0, backbone=Maps())
    with pytest.raises(ValueError, match="parts: expected a positive divisor"):
        PartConsensus(5, parts=3, backbone=Maps()).train()(clips, label=torch.tensor([0, 1]))
