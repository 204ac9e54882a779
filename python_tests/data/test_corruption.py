"""Corrupted frames: a fixed share, the same every time, and only in the evaluation."""

import json
import subprocess
import sys

import pytest
import torch

from vreid_ext.data import ClipDataset, Corruption, build_dataset, read_image
from vreid_ext.data.synth import synthesize


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("corrupt") / "mars"
    return build_dataset("mars", synthesize(root, ids=8, cameras=2, tracklets=2, frames=10, size=(64, 32)))


def corrupted(data, share, seed=0):
    corruption = Corruption(data.gallery, share, seed)
    return [
        (
            read_image(path),
            corruption(read_image(path), tracklet, frame),
            corruption.corrupts(tracklet, frame),
        )
        for tracklet in data.gallery
        for frame, path in enumerate(tracklet.paths)
    ]


def test_a_share_of_the_frames_is_changed_and_the_others_are_not(data):
    frames = corrupted(data, 1 / 3)
    assert all(before.shape == after.shape and after.dtype == torch.uint8 for before, after, _ in frames)
    changed = [not torch.equal(before, after) for before, after, _ in frames]
    assert changed == [said for *_, said in frames]
    # 160 frames: a standard deviation of 3.7 %
    assert abs(sum(changed) / len(changed) - 1 / 3) < 0.15
    assert [not torch.equal(a, b) for a, b, _ in corrupted(data, 1 / 3, seed=1)] != changed
    assert all(said for *_, said in corrupted(data, 1))


def test_each_kind_occurs(data):
    def kind(before, after):
        if ((after == 0).all(0) & (before != 0).any(0)).float().mean() > 0.4:
            return "black box"
        same = (before == after).all(0).float().mean()
        return "passer-by" if same > 0.15 else "blur"

    kinds = [kind(before, after) for before, after, _ in corrupted(data, 1)]
    assert all(0.15 < kinds.count(name) / len(kinds) < 0.55 for name in ("black box", "passer-by", "blur"))


def test_a_passer_by_is_another_person(data):
    corruption = Corruption(data.gallery, 1)
    for tracklet in data.gallery:
        others = [
            torch.stack([read_image(path) for path in t.paths]) for t in data.gallery if t.pid != tracklet.pid
        ]
        seen = corruption._passer_by(tracklet, 0.999, 0.5)
        assert any((frames == seen).flatten(1).all(1).any() for frames in others)


def test_other_processes_corrupt_the_same_frames(data):
    code = (
        "import json, sys\nfrom vreid_ext.data import Corruption, build_dataset\n"
        "data = build_dataset('mars', sys.argv[1])\ncorruption = Corruption(data.gallery, 0.5)\n"
        "print(json.dumps([corruption.corrupts(t, n) for t in data.gallery for n in range(len(t))]))"
    )
    ran = subprocess.run([sys.executable, "-c", code, data.root], capture_output=True, check=True)
    assert json.loads(ran.stdout) == [said for *_, said in corrupted(data, 0.5)]


def test_a_clip_data_set_corrupts_its_frames(data):
    clean = ClipDataset(data.query, 5, "evenly")
    spoiled = ClipDataset(data.query, 5, "evenly", corruption=Corruption(data.gallery, 1))
    assert not any(torch.equal(a, b) for a, b in zip(clean[0]["clip"], spoiled[0]["clip"], strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0}, r"^share: expected above 0 and at most 1, got 0"),
        ({"share": 1.5}, r"^share: expected above 0"),
        ({"share": 0.5, "seed": -1}, r"^seed: expected at least 0, got -1"),
    ],
)
def test_bad_arguments(data, options, message):
    with pytest.raises(ValueError, match=message):
        Corruption(data.gallery, **options)
    with pytest.raises(ValueError, match=r"^tracklets: expected at least two persons"):
        Corruption(data.gallery[:1], 0.5)
