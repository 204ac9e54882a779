import pytest
import torch
from torch import nn

from vreid_ext import data, engine
from vreid_ext.data import Tracklet, read_clip
from vreid_ext.engine import extract_features
from vreid_ext.engine.build import dataset_of

transform = data.test_transform(16, 8)


class Counting(nn.Module):
    """Per clip the mean and the number of its valid frames; remembers the largest batch."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, clips, valid=None):
        assert not self.training
        self.batches.append(len(clips))
        if valid is None:
            valid = torch.ones(clips.shape[:2], dtype=torch.bool)
        frames = clips.flatten(2).mean(2).masked_fill(~valid, 0)
        return torch.stack([frames.sum(1) / valid.sum(1), valid.sum(1).float()], 1)


def test_a_long_tracklet_is_embedded_in_bounded_chunks(one_image):
    tracklets = [Tracklet((str(one_image),) * n, 1, 1, f"t{n}") for n in (2000, 3)]
    model = Counting().train()
    features = extract_features(model, tracklets, frames=4, sampling="dense", transform=transform, chunk=16)
    assert max(model.batches) == 16
    assert sum(model.batches) == 501
    assert features[:, 1].tolist() == [4, 3]
    expected = transform(read_clip([str(one_image)])).mean()
    torch.testing.assert_close(features[:, 0], expected.expand(2))
    assert model.training


@pytest.mark.parametrize("sampling", ["evenly", "first_of_chunk"])
def test_one_clip_a_tracklet_in_the_order_given(one_image, sampling):
    tracklets = [Tracklet((str(one_image),) * n, 1, 1, str(n)) for n in (1, 9, 4)]
    model = Counting()
    features = extract_features(model, tracklets, frames=4, sampling=sampling, transform=transform, chunk=2)
    assert model.batches == [2, 1]
    assert features[:, 1].tolist() == [4, 4, 4]


def test_decoding_in_workers_changes_nothing(mars_root):
    tracklets = data.build_dataset("mars", mars_root).gallery
    features = [
        extract_features(
            Counting(), tracklets, frames=2, sampling="dense", transform=transform, chunk=3, workers=n
        )
        for n in (0, 2)
    ]
    assert torch.equal(*features)
    assert len(features[0][:, 0].unique()) > 1


def test_bad_arguments_are_named(one_image):
    with pytest.raises(ValueError, match=r"tracklets: expected .*, got none"):
        extract_features(Counting(), [], frames=4, transform=transform)
    with pytest.raises(ValueError, match=r"chunk: expected .*, got 0"):
        extract_features(
            Counting(), [Tracklet((str(one_image),), 1, 1, "a")], frames=4, transform=transform, chunk=0
        )


def test_a_set_of_strangers_has_no_figures_and_says_what_to_do(tmp_path):
    from PIL import Image

    for person in ("a", "b"):
        folder = tmp_path / person / "cam1" / "0"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 16)).save(folder / "0.jpg")
    recipe = engine.load_recipe("vtest_sta", [f"dataset.root={tmp_path}", "model.backbone=resnet18"])
    with pytest.raises(ValueError, match=r"got none in tracklet_folder; .*vreid search"):
        engine.evaluate_model(torch.nn.Identity(), dataset_of(recipe.dataset), recipe)
