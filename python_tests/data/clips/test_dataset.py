import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vreid_ext.data import ClipDataset, DatasetError, PKBatchSampler, Tracklet
from vreid_ext.data.clips import transforms

LENGTHS = (1, 3, 9, 16)


@pytest.fixture(scope="module")
def tracklets(tmp_path_factory):
    """Frame f of tracklet i has red 10 i + f, so that a clip shows which frames it holds."""
    root = tmp_path_factory.mktemp("clips")
    made = []
    for i, length in enumerate(LENGTHS):
        paths = []
        for frame in range(length):
            paths.append(str(root / f"{i}_{frame:02}.png"))
            Image.new("RGB", (8, 16), (10 * i + frame, 0, 0)).save(paths[-1])
        made.append(Tracklet(tuple(paths), pid=10 + i % 2, camid=i, name=str(i)))
    return made


def reds(item):
    return item["clip"][:, 0, 0, 0].tolist()


def test_item_holds_the_sampled_frames(tracklets):
    item = ClipDataset(tracklets, 4, "first_of_chunk", labels={10: 0, 11: 1})[3]
    assert reds(item) == [30, 34, 38, 42]
    assert item["clip"].shape == (4, 3, 16, 8)
    assert (item["pid"], item["camid"], item["index"], item["label"]) == (11, 3, 3, 1)
    assert "label" not in ClipDataset(tracklets, 4)[3]


def test_one_frame_tracklet_is_repeated(tracklets):
    for how in ("random", "evenly", "restricted", "consecutive", "first_of_chunk"):
        assert reds(ClipDataset(tracklets, 4, how)[0]) == [0, 0, 0, 0]


def test_seed_decides_frames_and_augmentation_alone(tracklets):
    transform = transforms.train_transform(16, 8, flip=0.5, crop=2, erase=0.5)
    dataset = ClipDataset(tracklets, 4, "random", transform)
    torch.manual_seed(1)
    first = dataset[3, 99]["clip"]
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(dataset[3, 99]["clip"], first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert any(not torch.equal(dataset[3, seed]["clip"], first) for seed in range(5))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers(tracklets, workers):
    dataset = ClipDataset(
        tracklets, 4, "random", transforms.train_transform(16, 8, crop=2), labels={10: 0, 11: 1}
    )
    sampler = PKBatchSampler([t.pid for t in tracklets], 2, 2, seed=3)
    batches = list(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))
    assert [b["clip"].shape for b in batches] == [(4, 4, 3, 16, 8)]
    expected = torch.stack([dataset[item]["clip"] for item in next(iter(sampler))])
    assert torch.equal(batches[0]["clip"], expected)


def test_dense_covers_every_frame_of_every_tracklet(tracklets):
    dataset = ClipDataset(tracklets, 4, "dense")
    assert len(dataset) == 1 + 1 + 3 + 4
    seen = {}
    for i in range(len(dataset)):
        item = dataset[i]
        frames = item["clip"][:, 0, 0, 0][item["valid"]].tolist()
        seen.setdefault(item["index"], []).extend(frames)
    assert seen == {i: [10 * i + f for f in range(n)] for i, n in enumerate(LENGTHS)}


def test_frames_of_differing_sizes_take_the_transforms_size(tmp_path):
    paths = []
    for i, size in enumerate([(8, 16), (10, 20), (6, 30)]):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", size, (200, 0, 0)).save(paths[-1])
    item = ClipDataset([Tracklet(tuple(paths), 1, 1, "a")], 3, "evenly", transforms.test_transform(24, 12))[0]
    assert item["clip"].shape == (3, 3, 24, 12)
    assert torch.allclose(item["clip"], item["clip"][:1, :, :1, :1].expand_as(item["clip"]), atol=1e-5)


def test_missing_image_is_named(tmp_path):
    dataset = ClipDataset([Tracklet((str(tmp_path / "gone.jpg"),), 1, 1, "a")], 1)
    with pytest.raises(DatasetError, match=r"gone\.jpg"):
        dataset[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames: expected .*got 0"),
        ({"sampling": "often"}, "sampling: expected one of random, .*dense, got 'often'"),
        ({"labels": {10: 0}}, r"labels: expected a class index for each pid, got none for pid 11 \(1 "),
    ],
)
def test_bad_argument_is_named(tracklets, options, message):
    with pytest.raises(ValueError, match=message):
        ClipDataset(tracklets, **{"frames": 4, **options})
