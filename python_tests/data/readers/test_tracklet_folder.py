import itertools
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from vreid_ext.data import DatasetError, build_dataset
from vreid_ext.engine.comparison import Comparison


def tracklet(root, place, frames=2, suffix=".jpg", grey=0):
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(frames):
        Image.new("RGB", (8, 16), (grey,) * 3).save(folder / f"{frame:04}{suffix}")
    return folder


def rows(tracklets):
    return [(t.name, t.pid, t.camid, len(t)) for t in tracklets]


def test_splits_share_pids_and_cameras(tmp_path):
    for place in ("train/anna/cam3/1", "train/zoe/cam1/1", "query/bob/cam1/1", "gallery/bob/cam3/1"):
        tracklet(tmp_path, place)
    data = build_dataset("tracklet_folder", tmp_path)
    assert rows(data.train) == [("train/anna/cam3/1", 1, 3, 2), ("train/zoe/cam1/1", 3, 1, 2)]
    assert rows(data.query) == [("query/bob/cam1/1", 2, 1, 2)]
    assert rows(data.gallery) == [("gallery/bob/cam3/1", 2, 3, 2)]


def test_numbers_as_names_are_the_pids(tmp_path):
    for place in ("0007/left/1", "0012/right/1"):
        tracklet(tmp_path, place)
    assert rows(build_dataset("tracklet_folder", tmp_path).train) == [
        ("0007/left/1", 7, 1, 2),
        ("0012/right/1", 12, 2, 2),
    ]


@pytest.mark.parametrize("level", ["", "cam1/"])
def test_without_or_with_one_camera_each_tracklet_is_its_own(tmp_path, level):
    for track in "123":
        for split in ("query", "gallery"):
            tracklet(tmp_path, f"{split}/anna/{level}{track}")
    tracklet(tmp_path, f"train/bob/{level}1")
    data = build_dataset("tracklet_folder", tmp_path)
    # The rule "ignore the query's person and camera" then leaves out the query itself and nothing else.
    for query in data.query:
        ignored = [t.name for t in data.gallery if (t.pid, t.camid) == (query.pid, query.camid)]
        assert ignored == [query.name.replace("query", "gallery")]
    assert "one camera" in data.protocol


def test_unsplit_root_and_fraction(tmp_path):
    for person in range(10):
        for cam in (1, 2):
            tracklet(tmp_path, f"{person}/cam{cam}/1")
    whole = build_dataset("tracklet_folder", tmp_path)
    assert len(whole.train) == len(whole.query) == len(whole.gallery) == 20
    half = build_dataset("tracklet_folder", tmp_path, split=0.3, seed=1)
    assert half.num_train_pids == 3
    assert len(half.train) == 6
    assert len(half.query) == 14
    assert not half.labels.keys() & {t.pid for t in half.query}
    assert rows(half.train) == rows(build_dataset("tracklet_folder", tmp_path, split=0.3, seed=1).train)
    assert any(
        rows(half.train) != rows(build_dataset("tracklet_folder", tmp_path, split=0.3, seed=s).train)
        for s in range(5)
    )


def test_suffixes_spaces_and_other_files(tmp_path):
    root = tmp_path / "my people"
    folder = tracklet(root, "anna maria/cam 1/track 1", suffix=".JPG")
    tracklet(root, "anna maria/cam 2/track 1", frames=1, suffix=".png")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").touch()
    (root / "tracklets.json").write_text("{}")
    data = build_dataset("tracklet_folder", root, check="decode")
    assert rows(data.train) == [
        ("anna maria/cam 1/track 1", 1, 1, 2),
        ("anna maria/cam 2/track 1", 1, 2, 1),
    ]


def test_empty_folder_is_named_or_skipped(tmp_path):
    tracklet(tmp_path, "anna/cam1/1")
    tracklet(tmp_path, "anna/cam2/1", frames=0)
    with pytest.raises(DatasetError, match="anna/cam2/1: expected at least one image, got an empty folder"):
        build_dataset("tracklet_folder", tmp_path)
    data = build_dataset("tracklet_folder", tmp_path, on_error="skip")
    assert len(data.train) == len(data.skipped) == 1


def test_unreadable_image_is_skipped_when_decoding(tmp_path):
    tracklet(tmp_path, "anna/cam1/1")
    (tracklet(tmp_path, "anna/cam2/1") / "0001.jpg").write_bytes(b"\xff\xd8\xff")
    data = build_dataset("tracklet_folder", tmp_path, check="decode", on_error="skip")
    assert [t.name for t in data.train] == ["anna/cam1/1"]
    assert "0001.jpg" in data.skipped[0]


def test_roots_that_hold_nothing(tmp_path):
    with pytest.raises(DatasetError, match=r"<person>/<camera>.* no tracklet in "):
        build_dataset("tracklet_folder", tmp_path)
    tracklet(tmp_path, "train/anna/cam1/1")
    with pytest.raises(DatasetError, match="got a folder without 'query'"):
        build_dataset("tracklet_folder", tmp_path)


@pytest.mark.parametrize("split", [0.0, 1.0, -1, 0.01])
def test_bad_fraction_is_named(tmp_path, split):
    for person in "abc":
        tracklet(tmp_path, f"{person}/cam1/1")
    with pytest.raises(ValueError, match=r"^split: "):
        build_dataset("tracklet_folder", tmp_path, split=split)


def test_fraction_of_a_split_root_is_refused(tmp_path):
    for split in ("train", "query", "gallery"):
        tracklet(tmp_path, f"{split}/anna/cam1/1")
    with pytest.raises(ValueError, match=r"^split: expected .*, got 0\.5"):
        build_dataset("tracklet_folder", tmp_path, split=0.5)


@pytest.mark.parametrize("level", ["", "cam1/"])
@pytest.mark.parametrize("tracks", [1, 2])
def test_numbers_that_start_again_in_the_gallery_are_other_tracklets(tmp_path, level, tracks):
    for number in range(8 * tracks):
        split, person = ("query", "gallery")[number % 2], "abcd"[number // 2 % 4]
        tracklet(tmp_path, f"{split}/{person}/{level}{number // 8 + 1:04}", grey=10 * number)
    tracklet(tmp_path, f"train/e/{level}0001")
    data = build_dataset("tracklet_folder", tmp_path)
    assert not {t.camid for t in data.query} & {t.camid for t in data.gallery}
    Comparison(data).first_match()


def test_a_copy_of_a_query_is_junk_whatever_its_name(tmp_path):
    for number in range(3):
        tracklet(tmp_path, f"query/anna/{number}", grey=50 * number)
        shutil.copytree(tmp_path / f"query/anna/{number}", tmp_path / f"gallery/anna/{(number + 1) % 3}")
    tracklet(tmp_path, "gallery/anna/9", grey=200)
    tracklet(tmp_path, "train/bob/0")
    data = build_dataset("tracklet_folder", tmp_path)
    camids = {t.name: t.camid for t in (*data.query, *data.gallery)}
    for number in range(3):
        assert camids[f"query/anna/{number}"] == camids[f"gallery/anna/{(number + 1) % 3}"]
    assert len(set(camids.values())) == 4


def test_two_tracklets_of_one_split_are_two_even_with_the_same_images(tmp_path):
    for place in ("query/anna/1", "query/anna/2", "gallery/anna/3", "train/bob/1"):
        tracklet(tmp_path, place)
    data = build_dataset("tracklet_folder", tmp_path)
    assert len({t.camid for t in data.query}) == 2
    assert len({t.camid for t in data.gallery} - {t.camid for t in data.query}) == 0


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    folder = tmp_path / "anna/cam1/1"
    folder.mkdir(parents=True)
    names = ["f", "f1", "f2", "f03", "f10", "f10_1", "f10_2", "f100"]
    for name in reversed(names):
        Image.new("RGB", (8, 16)).save(folder / f"{name}.png")
    (found,) = build_dataset("tracklet_folder", tmp_path).train
    assert [Path(path).stem for path in found.paths] == names


def test_a_prefix_of_zeros_is_no_padding(tmp_path):
    folder = tmp_path / "anna/cam1/1"
    folder.mkdir(parents=True)
    for number in range(1, 112):
        Image.new("RGB", (4, 8)).save(folder / f"000{number}.jpg")
    (found,) = build_dataset("tracklet_folder", tmp_path).train
    assert [int(Path(path).stem) for path in found.paths] == list(range(1, 112))


def test_images_in_the_folder_of_a_split_are_named(tmp_path):
    for place in ("train/anna/1", "query/bob/1", "gallery/bob/2", "train"):
        tracklet(tmp_path, place)
    with pytest.raises(DatasetError, match=r"train: expected folders of persons, got 2 images"):
        build_dataset("tracklet_folder", tmp_path)


@pytest.mark.parametrize("digits", ["9" * 20, "9223372036854775808"])
def test_folder_names_of_twenty_digits_are_names(tmp_path, digits):
    tracklet(tmp_path, f"{digits}/cam{digits}/1")
    tracklet(tmp_path, "7/cam2/1")
    data = build_dataset("tracklet_folder", tmp_path)
    assert {t.pid for t in data.train} == {t.camid for t in data.train} == {1, 2}
    with pytest.raises(ValueError, match="got none in tracklet_folder"):
        Comparison(data).first_match()


@pytest.mark.parametrize("digits", ["9223372036854775807", "20240101123000"])
def test_folder_names_of_long_numbers_that_fit_are_the_pids(tmp_path, digits):
    tracklet(tmp_path, f"{digits}/cam1/1")
    assert [t.pid for t in build_dataset("tracklet_folder", tmp_path).train] == [int(digits)]


@pytest.mark.parametrize("camera", ["", "café/"])
def test_a_name_in_nfc_and_in_nfd_is_one_person_and_one_camera(tmp_path, camera):
    def decomposed(text):
        return unicodedata.normalize("NFD", text)

    for split in ("train", "query"):
        tracklet(tmp_path, f"{split}/josé/{camera}1", grey=10)
    for split in ("train", "gallery"):
        tracklet(tmp_path, decomposed(f"{split}/josé/{camera}2"), grey=20)
    data = build_dataset("tracklet_folder", tmp_path)
    assert data.num_train_pids == 1
    assert {t.pid for t in (*data.train, *data.query, *data.gallery)} == {1}
    # One camera, or none: tracklets count as cameras of their own.
    assert "one camera" in data.protocol
    Comparison(data).first_match()


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("zoe", "zoe: expected folders of tracklets, got 2 images (0000.jpg, 0001.jpg)"),
        ("anna/cam1/1/more", "1/more: expected the images of one tracklet, got a folder of images"),
        (".", "expected folders of persons, got 2 images"),
    ],
)
def test_images_at_another_level_are_named_or_skipped(tmp_path, place, says):
    tracklet(tmp_path, "anna/cam1/1")
    tracklet(tmp_path, "anna/cam2/1")
    tracklet(tmp_path, place)
    with pytest.raises(DatasetError) as raised:
        build_dataset("tracklet_folder", tmp_path)
    assert says in str(raised.value)
    data = build_dataset("tracklet_folder", tmp_path, on_error="skip")
    assert len(data.train) == 2
    assert len(data.skipped) == 1
    assert says in data.skipped[0]
    assert says in str(data)


def test_a_person_beside_the_splits_is_named(tmp_path):
    for place in ("train/anna/1", "query/bob/1", "gallery/bob/2", "zoe/cam1/1"):
        tracklet(tmp_path, place)
    (tmp_path / "features").mkdir()
    with pytest.raises(DatasetError, match="zoe: expected only train, query and gallery"):
        build_dataset("tracklet_folder", tmp_path)
    data = build_dataset("tracklet_folder", tmp_path, on_error="skip")
    assert len(data.skipped) == 1
    assert data.ignored == [f"1 folders without images, such as {tmp_path / 'features'}"]


def test_files_that_are_no_images_are_counted(tmp_path):
    folder = tracklet(tmp_path, "anna/cam1/1")
    tracklet(tmp_path, "anna/cam2/1")
    for name in (".DS_Store", "._0000.jpg", "notes.txt", "a.txt", "README", "Thumbs.db"):
        (folder / name).touch()
    tracklet(tmp_path, "anna/cam1/1/@eaDir")  # thumbnails of a network drive
    (tmp_path / "joints.json").touch()
    data = build_dataset("tracklet_folder", tmp_path)
    assert [len(t) for t in data.train] == [2, 2]
    assert data.ignored == [
        f"3 hidden, such as {folder}/.DS_Store",
        f"1 of suffix .db, such as {folder}/Thumbs.db",
        f"2 of suffix .txt, such as {folder}/a.txt",
        f"1 without suffix, such as {folder}/README",
    ]
    assert not data.skipped


def test_images_beside_folders_of_a_camera_are_of_that_camera(tmp_path):
    tracklet(tmp_path, "anna/cam1")
    tracklet(tmp_path, "anna/cam1/2", grey=50)
    tracklet(tmp_path, "anna/cam2/1")
    assert rows(build_dataset("tracklet_folder", tmp_path).train) == [
        ("anna/cam1", 1, 1, 2),
        ("anna/cam1/2", 1, 1, 2),
        ("anna/cam2/1", 1, 2, 2),
    ]


def test_persons_have_the_same_numbers_in_every_process(tmp_path):
    """Python hashes text anew in each process, so that a set of names has another order there."""
    for name, camera in itertools.product(("anna", "bert", "cleo", "dora", "emil"), "12"):
        tracklet(tmp_path, f"{name}/{camera}/1")
    script = (
        "from vreid_ext.data import build_dataset\n"
        f"data = build_dataset('tracklet_folder', {os.fspath(tmp_path)!r})\n"
        "parts = (data.train, data.query, data.gallery)\n"
        "print([(item.name, item.pid, item.camid) for part in parts for item in part])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in "123"
    }  # fmt: skip
    assert len(said) == 1
    assert "emil" in said.pop()
