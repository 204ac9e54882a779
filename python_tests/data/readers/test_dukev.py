import pytest
from PIL import Image

from vreid_ext.data import DatasetError, build_dataset

NEW, OLD = "{pid}_C{cam}_F{frame:04}_X{x}.jpg", "{pid}C{cam}F{frame:04}X{x}.jpg"


def tracklet(root, split, pid, track, cam, frames, style=NEW):
    folder = root / split / pid / track
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        Image.new("RGB", (8, 16)).save(folder / style.format(pid=pid, cam=cam, frame=frame, x=30000 + frame))
    return folder


@pytest.fixture(params=[NEW, OLD], ids=["new", "old"])
def root(tmp_path, request):
    tracklet(tmp_path, "train", "0001", "0001", 2, range(2, 5), request.param)
    tracklet(tmp_path, "train", "0005", "2201", 5, [1], request.param)
    tracklet(tmp_path, "query", "0002", "2197", 1, [1, 2], request.param)
    tracklet(tmp_path, "gallery", "0002", "2198", 3, [1, 2], request.param)
    tracklet(tmp_path, "gallery", "0009", "2204", 1, [1, 2], request.param)
    return tmp_path


def test_both_namings(root):
    data = build_dataset("dukev", root)
    assert [(t.pid, t.camid, len(t), t.name) for t in data.train] == [
        (1, 2, 3, "train/0001/0001"),
        (5, 5, 1, "train/0005/2201"),
    ]
    assert [(t.pid, t.camid) for t in data.query] == [(2, 1)]
    assert [(t.pid, t.camid) for t in data.gallery] == [(2, 3), (9, 1)]


def test_frames_come_in_the_order_of_their_numbers(root):
    style = NEW if any((root / "train/0001/0001").glob("*_C2_*")) else OLD
    folder = tracklet(root, "train", "0001", "0001", 2, [10000, 9999], style)
    numbers = [style.format(pid="0001", cam=2, frame=f, x=30000 + f) for f in (2, 3, 4, 9999, 10000)]
    assert build_dataset("dukev", root).train[0].paths == tuple(str(folder / name) for name in numbers)


def test_distractor_folder(tmp_path, root):
    tracklet(root, "gallery", "D", "1", 4, [1])
    assert [(t.pid, t.camid) for t in build_dataset("dukev", root).gallery][-1] == (0, 4)


def test_attributes_by_tracklet_folder(root):
    row = "1,2,1,3,1,0,0,0,0,0,0,0,1,0,1,0,1,0,1,0,7,8"
    (root / "duke_attributes.csv").write_text("h" + "," * 21 + "\n" + row)
    first, second = build_dataset("dukev", root).train
    assert first.attributes["top_color"] == 8
    assert second.attributes is None


def test_empty_folder_is_named_or_skipped(root):
    (root / "train" / "0005" / "2300").mkdir()
    with pytest.raises(DatasetError, match=r"2300: expected at least one image, got an empty folder"):
        build_dataset("dukev", root)
    data = build_dataset("dukev", root, on_error="skip")
    assert len(data.train) == 2
    assert len(data.skipped) == 1


def test_what_is_not_read_is_named_or_counted(root):
    tracklet(root, "train", "0001", "0001/more", 2, [1])
    with pytest.raises(DatasetError, match="0001/more: expected the images of one tracklet"):
        build_dataset("dukev", root)
    tracklet(root, "train", "0001", ".", 2, [1])
    (root / "query/0002/2197/notes.txt").touch()
    (root / "val").mkdir()
    data = build_dataset("dukev", root, on_error="skip")
    assert [line.rpartition("/")[2] for line in data.skipped] == [
        "0001: expected folders of tracklets, got 1 images (0001_C2_F0001_X30001.jpg)",
        "more: expected the images of one tracklet, got a folder of images",
    ]
    assert len(data.ignored) == 2
    assert len(data.train) == 2


def test_a_person_of_twenty_digits_is_named(root):
    tracklet(root, "train", "1" * 20, "0001", 2, [1])
    with pytest.raises(DatasetError, match=r"expected person folders like 0001, got '1{20}'"):
        build_dataset("dukev", root)


def test_other_names_and_mixed_cameras_are_named(root):
    (root / "train" / "0001" / "0001" / "portrait.jpg").touch()
    with pytest.raises(DatasetError, match=r"expected image names like .*, got 'portrait\.jpg'"):
        build_dataset("dukev", root)
    (root / "train" / "0001" / "0001" / "portrait.jpg").unlink()
    tracklet(root, "query", "0002", "2197", 7, [9])
    with pytest.raises(DatasetError, match=r"2197: expected images of one camera, got cameras \[1, 7\]"):
        build_dataset("dukev", root)


def test_missing_split_is_named(root):
    (root / "query").rename(root / "probe")
    with pytest.raises(DatasetError, match="got a folder without 'query'"):
        build_dataset("dukev", root)


def test_an_image_of_somebody_else_is_named(root):
    Image.new("RGB", (8, 16)).save(root / "train/0001/0001/0007_C2_F0009_X1.jpg")
    with pytest.raises(DatasetError, match=r"expected images of person 1, got '0007_C2_F0009_X1\.jpg'"):
        build_dataset("dukev", root)
