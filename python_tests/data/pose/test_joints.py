import json
import unicodedata

import numpy as np
import pytest
import torch

from vreid_ext.data import (
    JOINTS,
    BlackBox,
    ClipDataset,
    DatasetError,
    Tracklet,
    TrackletDataset,
    attach_joints,
    build_dataset,
)
from vreid_ext.data.clips import transforms
from vreid_ext.data.pose.joints import mirror_joints, write_joints, written_tracklets
from vreid_ext.data.synth import synthesize


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return synthesize(
        tmp_path_factory.mktemp("joints") / "mars", ids=4, cameras=2, tracklets=1, frames=3, size=(32, 16)
    )


@pytest.fixture(scope="module")
def dataset(root):
    return build_dataset("mars", root)


@pytest.fixture
def content(root):
    return json.loads((root / "joints.json").read_text())


def test_the_synthetic_set_has_joints_for_every_tracklet(dataset, content):
    attached = attach_joints(dataset)
    for split in ("train", "query", "gallery"):
        for before, tracklet in zip(getattr(dataset, split), getattr(attached, split), strict=True):
            assert tracklet == before
            assert tracklet.joints.shape == (3, 14, 3)
            assert torch.equal(tracklet.joints, torch.tensor(content["tracklets"][tracklet.name]))


def test_both_forms_of_the_file_say_the_same(dataset, content, tmp_path):
    path = tmp_path / "joints.jsonl"
    tracklets = [(name, np.array(joints)) for name, joints in content["tracklets"].items()]
    assert list(write_joints(path, tracklets)) == list(content["tracklets"])
    for mine, other in zip(attach_joints(dataset, path).train, attach_joints(dataset).train, strict=True):
        assert torch.equal(mine.joints, other.joints)


def test_writing_goes_on_after_a_kill(content, tmp_path):
    path = tmp_path / "joints.jsonl"
    tracklets = [(name, np.array(joints)) for name, joints in content["tracklets"].items()]
    assert written_tracklets(path) == set()
    list(write_joints(path, tracklets[:2]))
    whole = path.read_bytes()
    list(write_joints(path, tracklets[2:3]))
    path.write_bytes(path.read_bytes()[:-20])
    assert written_tracklets(path) == {name for name, _ in tracklets[:2]}
    assert path.read_bytes() == whole


def test_without_a_file_a_warning_and_no_joints(dataset, tmp_path):
    import dataclasses

    with pytest.warns(UserWarning, match="no joints.json or joints.jsonl; using the fixed part positions"):
        same = attach_joints(dataclasses.replace(dataset, root=str(tmp_path)))
    assert same.train[0].joints is None


def broken(content, how):
    names = list(content["tracklets"])
    train = next(name for name in names if name[:4] == "0001")
    if how == "another skeleton":
        content["joints"][0] = "nose"
        return "joints: expected \\['head', 'neck'.*got .*'nose'"
    if how == "another data set":
        content["tracklets"] = {f"x{name}": value for name, value in content["tracklets"].items()}
        return "such as 0001C1T0001.*; the file belongs to another data set"
    if how == "missing":
        del content["tracklets"][train]
        return f"expected joints of all .* tracklets, got none for 1 of them, such as {train}$"
    if how == "another number of frames":
        content["tracklets"][train].append(content["tracklets"][train][0])
        return rf"tracklet {train}: expected joints of shape \(3, 14, 3\) .*, got \(4, 14, 3\)"
    if how in ("1e999", "NaN", "1" + "0" * 400):
        content["tracklets"][train][0][0][1] = json.loads(how)
        return f"tracklet {train}: expected (finite )?joints"
    if how == "names that are none":
        content["joints"] = 5
        return "joints: expected .*, got 5"
    if how == "a joint too few":
        content["tracklets"][train][0].pop()
        return f"tracklet {train}: expected joints of .*, got rows of different lengths"
    content["tracklets"] = []
    return "expected 'tracklets'"


@pytest.mark.parametrize(
    "how",
    [
        "another skeleton",
        "another data set",
        "missing",
        "another number of frames",
        "a joint too few",
        "names that are none",
        "1e999",
        "NaN",
        "1" + "0" * 400,
        "list",
    ],
)
def test_a_wrong_file_is_named(dataset, content, tmp_path, how):
    message = broken(content, how)
    path = tmp_path / "joints.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message) as error:
        attach_joints(dataset, path)
    assert str(path) in str(error.value)


def test_names_with_accents_of_another_system_are_found(content, tmp_path):
    def renamed(form):
        return unicodedata.normalize(form, "josé/1")

    tracklet = Tracklet(("1.jpg", "2.jpg", "3.jpg"), 1, 1, renamed("NFD"))
    own = TrackletDataset("own", str(tmp_path), [tracklet], [], [], "")
    content["tracklets"] = {renamed("NFC"): next(iter(content["tracklets"].values()))}
    (tmp_path / "joints.json").write_text(json.dumps(content))
    assert attach_joints(own).train[0].joints.shape == (3, 14, 3)


def test_two_tracklets_of_one_name_are_refused(content, tmp_path):
    parts = [Tracklet((f"{place}/1.jpg",), 1, 1, "anna/1") for place in ("query", "gallery")]
    with pytest.raises(DatasetError, match="expected unique tracklet names"):
        attach_joints(TrackletDataset("own", str(tmp_path), [], parts[:1], parts[1:], ""), tmp_path / "none")


UNNAMED = json.dumps({"joints": JOINTS}) + '\n{"tracklet": [], "frames": []}\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{"), ("a.jsonl", "{}\n"), ("a.jsonl", ""), ("a.jsonl", UNNAMED), ("b.json", None)],
)
def test_an_unreadable_file_is_named(dataset, tmp_path, name, text):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(DatasetError, match=name):
        attach_joints(dataset, path)


def marked_clip():
    """Frames with a pixel of its own colour at each of three joints; the other joints are at the centre."""
    clip = torch.zeros(2, 3, 40, 20, dtype=torch.uint8)
    joints = torch.full((2, 14, 3), 0.5)
    for color, (index, row, column) in enumerate(((2, 10, 4), (5, 12, 15), (13, 33, 7))):
        clip[:, color, row, column] = 255
        joints[:, index, 0], joints[:, index, 1] = (column + 0.5) / 20, (row + 0.5) / 40
    return clip, joints


@pytest.mark.parametrize("seed", range(8))
def test_joints_stay_on_their_pixels(seed):
    """Under flip and crop the pixel of a joint stays under it; a flip swaps the shoulders."""
    clip, joints = marked_clip()
    torch.manual_seed(seed)
    out, moved = transforms.train_transform(40, 20, flip=0.5, crop=3).with_joints(clip, joints)
    torch.manual_seed(seed)
    flipped = bool(torch.rand(()) < 0.5)
    torch.manual_seed(seed)
    assert torch.equal(out, transforms.train_transform(40, 20, flip=0.5, crop=3)(clip))
    for color, (index, mirrored) in enumerate(((2, 5), (5, 2), (13, 10))):
        x, y, _ = moved[0, mirrored if flipped else index].tolist()
        assert out[:, color].flatten(1).argmax(1).tolist() == [int(y * 40) * 20 + int(x * 20)] * 2


def test_mirroring_twice_is_nothing():
    joints = torch.rand(4, 14, 3)
    before = joints.clone()
    torch.testing.assert_close(mirror_joints(mirror_joints(joints)), joints)
    assert torch.equal(joints, before)
    assert [JOINTS[i] for i in (2, 5)] == ["right_shoulder", "left_shoulder"]
    assert torch.equal(mirror_joints(joints)[:, 2, 1:], joints[:, 5, 1:])


def test_items_carry_joints_as_shares_of_the_frame(dataset):
    tracklets = attach_joints(dataset).train
    item = ClipDataset(tracklets, 2, "first_of_chunk", transforms.test_transform(64, 64))[1]
    expected = tracklets[1].joints[[0, 1]] / torch.tensor([16, 32, 1])
    torch.testing.assert_close(item["joints"], expected)
    with pytest.raises(
        TypeError, match=r"transform: expected a ClipTransform, because tracklet 0001C1T0001 .*, got function"
    ):
        ClipDataset(tracklets, 2, transform=lambda clip: clip)


def test_the_black_box_is_the_same_every_time_and_inside_the_frame(dataset):
    plain = ClipDataset(dataset.train, 3, "evenly")
    hidden = ClipDataset(dataset.train, 3, "evenly", black_box=BlackBox(5))
    other = ClipDataset(dataset.train, 3, "evenly", black_box=BlackBox(5, seed=1))
    places = set()
    for index in range(len(plain)):
        clip, covered = plain[index]["clip"], hidden[index]["clip"]
        assert torch.equal(covered, hidden[index]["clip"])
        assert not torch.equal(covered, other[index]["clip"])
        for before, after in zip(clip, covered, strict=True):
            changed = (before != after).any(0).nonzero()
            top, left = changed.min(0).values.tolist()
            assert (after[:, top : top + 5, left : left + 5] == 0).all()
            assert ((changed.max(0).values - changed.min(0).values) < 5).all()
            places.add((top, left))
    assert len(places) > 6
    assert BlackBox(99)(plain[0]["clip"][0], "any \udcff", 0).eq(0).all()
    with pytest.raises(ValueError, match=r"side: expected .*, got 0"):
        BlackBox(0)
