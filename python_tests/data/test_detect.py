import pytest
from PIL import Image

from vreid_ext.data import DatasetError, dataset_names
from vreid_ext.data.detect import detect_dataset
from vreid_ext.data.synth import synthesize


def tracklet(root, place, frames=2):
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(frames):
        Image.new("RGB", (8, 16)).save(folder / f"{frame:04}.png")


@pytest.mark.parametrize(("layout", "frames"), [("mars", 2), ("ilids", 2), ("prid", 28)])
def test_a_published_layout_is_found(tmp_path, layout, frames):
    synthesize(tmp_path / "set", layout=layout, ids=4, frames=frames, size=(32, 16))
    assert detect_dataset(tmp_path / "set").name == layout


def test_plain_folders_with_splits_are_not_taken_for_a_published_set(tmp_path):
    for place in ("train/0001/1/1", "query/0002/1/1", "gallery/0002/2/1"):
        tracklet(tmp_path, place)
    data = detect_dataset(tmp_path)
    assert (data.name, len(data.train), len(data.query)) == ("tracklet_folder", 1, 1)


def test_unusable_tracklets_are_skipped(tmp_path):
    tracklet(tmp_path, "anna/cam1/1")
    (tmp_path / "bob/cam1/1").mkdir(parents=True)
    data = detect_dataset(tmp_path)
    assert len(data.train) == len(data.skipped) == 1


def test_a_missing_folder(tmp_path):
    with pytest.raises(DatasetError, match=r"root: expected a folder of tracklets, got .*does not exist"):
        detect_dataset(tmp_path / "none")


def test_a_folder_without_images(tmp_path):
    (tmp_path / "anna/cam1").mkdir(parents=True)
    (tmp_path / "anna/cam1/notes.txt").touch()
    with pytest.raises(DatasetError, match="which contains no image"):
        detect_dataset(tmp_path)


def test_an_unknown_layout_lists_all_that_were_tried(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 16)).save(tmp_path / name)
    with pytest.raises(DatasetError) as error:
        detect_dataset(tmp_path)
    first, *tried = str(error.value).splitlines()
    assert first == f"root: expected a folder in one of these layouts, got {tmp_path}"
    last = ["g2a_vreid", "tracklet_folder"]
    layouts = [line.strip().partition(":")[0] for line in tried]
    assert layouts == [*sorted(set(dataset_names()) - set(last)), *last]
    assert "expected bbox_train/, bbox_test/ and info/ of MARS" in tried[layouts.index("mars")]
    assert "a.jpg" in tried[-1] or "got no tracklet" in tried[-1]
