import pytest
from PIL import Image

from vreid_ext.data import DatasetError, build_dataset


def tracklet(root, place, frames=2, suffix=".jpg"):
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(frames):
        Image.new("RGB", (8, 16)).save(folder / f"{frame:04}{suffix}")
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
    with pytest.raises(DatasetError, match="anna/cam2/1: an empty folder"):
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
    with pytest.raises(DatasetError, match=r"no tracklets in .*<person>/<camera>"):
        build_dataset("tracklet_folder", tmp_path)
    tracklet(tmp_path, "train/anna/cam1/1")
    with pytest.raises(DatasetError, match="query is missing"):
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
    with pytest.raises(ValueError, match=r"^split: got 0\.5"):
        build_dataset("tracklet_folder", tmp_path, split=0.5)
