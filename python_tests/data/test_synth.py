"""The synthetic set: layout as MARS publishes it, reproducible, and not solved by colour."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from vreid_ext.data.synth import synthesize

IDS, CAMERAS, TRACKLETS, FRAMES = 12, 3, 2, 4
SETTINGS = {"ids": IDS, "cameras": CAMERAS, "tracklets": TRACKLETS, "frames": FRAMES, "size": (64, 32)}


@pytest.fixture(scope="module")
def synth(tmp_path_factory) -> Path:
    return synthesize(tmp_path_factory.mktemp("synth") / "with space", **SETTINGS, seed=3)


def digest(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def tracks(root: Path, split: str) -> np.ndarray:
    return loadmat(root / "info" / f"tracks_{split}_info.mat")[f"track_{split}_info"]


def names(root: Path, split: str) -> list[str]:
    return (root / "info" / f"{split}_name.txt").read_text().split()


def test_every_listed_image_is_there_and_none_besides(synth):
    for split in ("train", "test"):
        listed = names(synth, split)
        on_disk = {path.name for path in (synth / f"bbox_{split}").rglob("*.jpg")}
        assert len(listed) == len(set(listed)) == len(on_disk)
        assert set(listed) == on_disk
        for name in listed:
            with Image.open(synth / f"bbox_{split}" / name[:4] / name) as image:
                assert image.size == (32, 64)


def test_track_rows_cover_the_names_and_agree_with_them(synth):
    for split in ("train", "test"):
        rows, listed = tracks(synth, split), names(synth, split)
        assert rows.shape[1] == 4
        assert rows[0, 0] == 1
        assert rows[-1, 1] == len(listed)
        assert (rows[1:, 0] == rows[:-1, 1] + 1).all()
        for start, end, pid, camera in rows:
            crops = listed[start - 1 : end]
            assert len(crops) == FRAMES
            assert len({crop[:11] for crop in crops}) == 1
            assert crops[0][:4] == ("00-1" if pid == -1 else f"{pid:04d}")
            assert crops[0][5] == str(camera)


def test_people_are_split_in_halves_and_filmed_by_every_camera(synth):
    pids = {split: set(tracks(synth, split)[:, 2].tolist()) for split in ("train", "test")}
    assert len(pids["train"]) == IDS // 2
    assert pids["test"] >= {-1, 0}
    assert len(pids["test"]) == IDS // 2 + 2
    assert not pids["train"] & pids["test"]
    for split in ("train", "test"):
        seen = Counter((pid, camera) for _, _, pid, camera in tracks(synth, split).tolist() if pid > 0)
        assert set(seen.values()) == {TRACKLETS}
        assert len(seen) == IDS // 2 * CAMERAS


def test_one_query_for_each_test_person_and_camera(synth):
    index = loadmat(synth / "info" / "query_IDX.mat")["query_IDX"]
    assert index.shape == (1, IDS // 2 * CAMERAS)
    chosen = tracks(synth, "test")[index[0].astype(int) - 1]
    assert len({(pid, camera) for _, _, pid, camera in chosen.tolist()}) == index.size
    assert (chosen[:, 2] > 0).all()


def test_attributes_follow_the_person_and_key_every_tracklet(synth):
    with open(synth / "mars_attributes.csv", newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header[:3] == ["person_id", "camera_id", "tracklets_id"]
    assert len(header) == 24
    table = {tuple(map(int, row[:3])): tuple(map(int, row[3:])) for row in rows}
    on_disk = {
        (int(name[:4]), int(name[5]), int(name[7:11]))
        for split in ("train", "test")
        for name in names(synth, split)
        if name[:4] not in ("00-1", "0000")
    }
    assert set(table) == on_disk
    sizes = [5, 6] + [2] * 7 + [9, 10, 4] + [2] * 9
    assert all(0 <= value < size for row in table.values() for value, size in zip(row, sizes, strict=True))
    lasting = {pid: {row[9:] for key, row in table.items() if key[0] == pid} for pid, _, _ in table}
    assert all(len(values) == 1 for values in lasting.values())
    assert len(set.union(*lasting.values())) > IDS // 2


def test_joints_lie_on_a_body(synth):
    joints = json.loads((synth / "joints.json").read_text())
    assert len(joints["joints"]) == 14
    people = {n[:11] for s in ("train", "test") for n in names(synth, s) if n[:4] not in ("00-1", "0000")}
    distractors = {n[:11] for n in names(synth, "test") if n[:4] == "0000"}
    assert set(joints["tracklets"]) == people | distractors
    body = np.array([joints["tracklets"][name] for name in sorted(people)])
    assert body.shape == (IDS * CAMERAS * TRACKLETS, FRAMES, 14, 3)
    index = {name: k for k, name in enumerate(joints["joints"])}
    y = body[..., 1]
    assert (y[..., index["head"]] < y[..., index["neck"]]).all()
    for side in ("left", "right"):
        assert (y[..., index[f"{side}_shoulder"]] < y[..., index[f"{side}_hip"]]).all()
        assert (y[..., index[f"{side}_hip"]] < y[..., index[f"{side}_ankle"]]).all()
    x, seen = body[..., 0], body[..., 2]
    assert set(np.unique(seen)) == {0, 1}
    assert 0.6 < seen.mean() < 1
    assert ((x >= 0) & (x < 32) & (y >= 0) & (y < 64))[seen == 1].all()


def test_legs_swing(synth):
    body = np.array(list(json.loads((synth / "joints.json").read_text())["tracklets"].values()))
    spread = np.linalg.norm(body[:, :, 10, :2] - body[:, :, 13, :2], axis=-1)
    assert (np.ptp(spread, axis=1) > 1).mean() > 0.8


def test_same_arguments_same_bytes(synth, tmp_path):
    first = "bbox_train/0001/0001C1T0001F001.jpg"
    again = synthesize(tmp_path / "again", **SETTINGS, seed=3)
    other = synthesize(tmp_path / "other", **SETTINGS, seed=4)
    assert digest(again) == digest(synth)
    assert (other / first).read_bytes() != (synth / first).read_bytes()


def test_rendering_leaves_the_global_generators_alone(tmp_path):
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    synthesize(tmp_path / "set", ids=4, cameras=2, tracklets=1, frames=1, size=(32, 16))
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert random.getstate() == before[1]


def clothing_colours(path: Path) -> np.ndarray:
    """Mean colours of where shirt and trousers are in a well cut 64 x 32 box."""
    with Image.open(path) as image:
        crop = np.asarray(image, float)
    return np.concatenate([crop[14:32, 10:22].mean((0, 1)), crop[34:54, 10:22].mean((0, 1))])


def mean_ap(scores: np.ndarray, queries: np.ndarray, pids: np.ndarray, cameras: np.ndarray) -> float:
    precisions = []
    for query, row in zip(queries, scores, strict=True):
        valid = (pids != pids[query]) | (cameras != cameras[query])
        hits = pids[valid][np.argsort(row[valid], kind="stable")] == pids[query]
        precisions.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return float(np.mean(precisions))


def test_colour_averages_beat_chance_but_are_far_from_enough(tmp_path):
    root = synthesize(tmp_path / "set", ids=36, cameras=4, tracklets=2, frames=4, size=(64, 32))
    rows, listed = tracks(root, "test"), names(root, "test")
    kept = np.flatnonzero(rows[:, 2] != -1)
    paths = [
        [root / "bbox_test" / name[:4] / name for name in listed[s - 1 : e]] for s, e, _, _ in rows[kept]
    ]
    features = np.array([np.mean([clothing_colours(path) for path in crops], 0) for crops in paths])
    index = loadmat(root / "info" / "query_IDX.mat")["query_IDX"][0].astype(int) - 1
    queries, pids, cameras = np.searchsorted(kept, index), rows[kept, 2], rows[kept, 3]
    distances = np.linalg.norm(features[queries, None] - features[None], axis=-1)
    colour = mean_ap(distances, queries, pids, cameras)
    chance = mean_ap(np.random.default_rng(0).random(distances.shape), queries, pids, cameras)
    assert 1.5 * chance < colour < 0.35


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("ids", 3, ValueError),
        ("ids", 8.0, TypeError),
        ("ids", True, TypeError),
        ("cameras", 1, ValueError),
        ("cameras", 10, ValueError),
        ("tracklets", 0, ValueError),
        ("frames", 1000, ValueError),
        ("seed", -1, ValueError),
        ("size", 64, TypeError),
        ("size", (64, 8), ValueError),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(tmp_path, argument, value, error):
    with pytest.raises(error, match=argument):
        synthesize(tmp_path / "set", **{argument: value})
    assert not (tmp_path / "set").exists()


def test_a_directory_with_content_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        synthesize(tmp_path, ids=4)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_progress_counts_tracklets(tmp_path):
    seen = []
    small = {"ids": 4, "cameras": 2, "tracklets": 1, "frames": 1, "size": (32, 16)}
    root = synthesize(tmp_path / "set", **small, progress=lambda done, total: seen.append((done, total)))
    total = sum(len(tracks(root, split)) for split in ("train", "test"))
    assert seen == [(k, total) for k in range(1, total + 1)]


def test_an_interrupted_set_leaves_nothing(tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "set", ids=4, frames=1, size=(32, 16), progress=interrupt)
    assert list(tmp_path.iterdir()) == []
