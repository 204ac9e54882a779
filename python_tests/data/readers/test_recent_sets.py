"""AG-VPReID, MEVID and VVeRI-901: layouts, settings, damaged files."""

import numpy as np
import pytest
from PIL import Image

from vreid_ext.data import DatasetError, build_dataset


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 8)).save(path)


AERIAL = {
    "train": [("0003", "t1", 0), ("0003", "t2", 4)],
    "case1_aerial_to_ground/query": [("0001", "t1", 4), ("0002", "t1", 5)],
    "case1_aerial_to_ground/gallery": [("0001", "t2", 0), ("0002", "t2", 2), ("0002", "t3", 3)],
    "case2_ground_to_aerial/query": [("0001", "t2", 0)],
    "case2_ground_to_aerial/gallery": [("0001", "t1", 4), ("0002", "t1", 5)],
}


@pytest.fixture
def aerial(tmp_path):
    for folder, tracks in AERIAL.items():
        for person, track, camera in tracks:
            for frame in range(1, 4):
                touch(tmp_path / folder / person / track / f"P{person}A1C{camera}E0F{frame:03}.jpg")
    return tmp_path


def test_ag_vpreid_has_two_directions(aerial):
    there = build_dataset("ag_vpreid", aerial)
    assert [(t.pid, t.camid, t.tags["aerial"], len(t)) for t in there.query] == [(1, 4, 1, 3), (2, 5, 1, 3)]
    assert {t.tags["aerial"] for t in there.gallery} == {0}
    back = build_dataset("ag_vpreid", aerial, direction="ground_to_aerial", check="decode")
    assert [(t.pid, t.camid) for t in back.query] == [(1, 0)]
    assert {t.tags["aerial"] for t in back.gallery} == {1}
    assert back.train == there.train
    assert "ground to aerial" in back.protocol
    assert len(there.by_name()) == 7


def test_ag_vpreid_damage(aerial):
    with pytest.raises(
        ValueError, match=r"^direction: expected one of aerial_to_ground, ground_to_aerial, got 'up'"
    ):
        build_dataset("ag_vpreid", aerial, direction="up")
    folder = aerial / "case1_aerial_to_ground/gallery/0002/t3"
    touch(folder / "P0002A1C2E0F004.jpg")
    with pytest.raises(
        DatasetError, match=r"0002/t3: expected images of one camera with names like \.\.\.C4E"
    ):
        build_dataset("ag_vpreid", aerial)
    assert len(build_dataset("ag_vpreid", aerial, on_error="skip").gallery) == 2
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"0002/t3: expected at least one image, got none"):
        build_dataset("ag_vpreid", aerial)
    folder.parent.rename(folder.parent.with_name("two"))
    with pytest.raises(DatasetError, match=r"gallery: expected person folders like 0001, got 'two'"):
        build_dataset("ag_vpreid", aerial)
    (aerial / "train").rename(aerial / "training")
    with pytest.raises(DatasetError, match=r"of AG-VPReID in .*, got a folder without 'train'"):
        build_dataset("ag_vpreid", aerial)


# person, outfit, camera, tracklet, frames
MEVID = {
    "train": [(103, 20, 424, 0, 2), (103, 21, 330, 1, 1)],
    "test": [
        (201, 3, 330, 4, 2),
        (201, 3, 329, 5, 1),
        (201, 3, 436, 6, 2),
        (201, 4, 330, 7, 1),
        (202, 1, 505, 0, 2),
    ],
}


@pytest.fixture
def mevid(tmp_path):
    for split, tracks in MEVID.items():
        names, rows = [], []
        for pid, outfit, camera, track, frames in tracks:
            rows.append((len(names), len(names) + frames - 1, pid, outfit, camera))
            names += [f"{pid:04}O{outfit:03}C{camera}T{track:03}F{frame:05}.jpg" for frame in range(frames)]
        for name in names:
            touch(tmp_path / f"bbox_{split}" / name[:4] / name)
        (tmp_path / f"{split}_name.txt").write_text("\n".join(names) + "\n")
        np.savetxt(tmp_path / f"track_{split}_info.txt", rows)  # in the form 2.010e+02 of the published file
    (tmp_path / "query_IDX.txt").write_text("0\n")
    return tmp_path


def ignored(data):
    return [data.ignores(data.query[0], item) for item in data.gallery]


def test_mevid(mevid):
    data = build_dataset("mevid", mevid, check="decode")
    assert [(t.pid, t.camid, len(t), t.name) for t in data.query] == [(201, 330, 2, "0201O003C330T004")]
    assert [(t.pid, t.camid) for t in data.gallery] == [(201, 329), (201, 436), (201, 330), (202, 505)]
    assert [t.tags["location"] for t in data.gallery] == [0, 1, 0, 1]
    assert data.gallery[0].tags["clothes"] == data.query[0].tags["clothes"] != data.gallery[2].tags["clothes"]
    assert len({t.tags["clothes"] for t in (*data.train, *data.query, *data.gallery)}) == 5
    assert ignored(data) == [False, False, True, False]  # the query's camera


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("clothes_changing", [True, True, True, False]),
        ("same_clothes", [False, False, True, False]),
        ("location_changing", [True, False, True, False]),
        ("same_location", [False, True, True, False]),
        ("scale_changing", [False, True, True, False]),
        ("same_scale", [True, False, True, False]),
    ],
)
def test_mevid_settings(mevid, setting, expected):
    if "scale" in setting:
        with pytest.raises(
            DatasetError, match=r"test_track_scale\.txt: no such file; it is published with the code"
        ):
            build_dataset("mevid", mevid, setting=setting)
    scales = [f"{name}.jpg {scale}" for name, scale in zip("abcde", "lmlml")]
    (mevid / "test_track_scale.txt").write_text("\n".join(scales))
    data = build_dataset("mevid", mevid, setting=setting)
    assert ignored(data) == expected
    assert setting.replace("_", " ") in data.protocol


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("query_IDX.txt", "5\n", r"query_IDX\.txt: expected rows of track_test_info\.txt, all from 0 to 4"),
        ("query_IDX.txt", "0.5\n", r"query_IDX\.txt: expected whole numbers"),
        ("query_IDX.txt", "first\n", r"query_IDX\.txt: expected lines like '17', got an error"),
        ("query_IDX.txt", None, r"a folder without 'query_IDX\.txt'"),
        ("test_name.txt", None, r"a folder without 'test_name\.txt'"),
        (
            "track_test_info.txt",
            "0 1 201 3 330 7\n",
            r"track_test_info\.txt, line 1: expected a line like '0 9",
        ),
        (
            "track_test_info.txt",
            "0 99 201 3 330\n",
            r"track_test_info\.txt, row 0: expected 0 <= start <= end < 8",
        ),
        (
            "track_test_info.txt",
            "0 1 201 3 329\n",
            r"test_name\.txt, lines 1 to 2: expected names like 0201O003C329",
        ),
        (
            "test_track_scale.txt",
            "a.jpg l\n",
            r"test_track_scale\.txt: expected 5 lines like track_test_info\.txt, got 1",
        ),
        (
            "test_track_scale.txt",
            "a.jpg big\n",
            r"test_track_scale\.txt, entry 1: expected one of s, m, l, got 'big'",
        ),
    ],
)
def test_mevid_damage(mevid, file, content, message):
    (mevid / file).unlink() if content is None else (mevid / file).write_text(content)
    with pytest.raises(DatasetError, match=message):
        build_dataset("mevid", mevid)
    with pytest.raises(
        ValueError, match=r"^setting: expected one of general, clothes_changing, .*, got 'CC'"
    ):
        build_dataset("mevid", mevid, setting="CC")


def test_mevid_missing_image(mevid):
    next((mevid / "bbox_test" / "0202").iterdir()).unlink()
    with pytest.raises(DatasetError, match=r"0202O001C505T000.*no such image"):
        build_dataset("mevid", mevid)
    assert len(build_dataset("mevid", mevid, on_error="skip").gallery) == 3


@pytest.fixture
def vehicles(tmp_path):
    base = tmp_path / "VVERI901_V1_Trial"
    for split, folders in (
        ("train", ["7/L01_C02_V01", "7/L02_C04_V01"]),
        ("query", ["2120/L09_C31_V07"]),
        ("gallery", ["2120/L09_C32_V07", "2121/L09_C31_V07"]),
    ):
        base.mkdir(exist_ok=True)
        (base / f"{split}.txt").write_text("".join(f"./VVERI901_V1_Trial/{folder}\n" for folder in folders))
        for folder in folders:
            for frame in (998, 1000, 1001):
                touch(base / folder / f"{frame}.png")
    return tmp_path


def test_vveri901(vehicles):
    data = build_dataset("vveri901", vehicles)
    assert [(t.pid, t.camid, t.tags) for t in data.query] == [(2120, 31, {"location": 9})]
    assert [(t.pid, t.camid) for t in data.gallery] == [(2120, 32), (2121, 31)]
    assert [path[-8:] for path in data.query[0].paths] == ["/998.png", "1000.png", "1001.png"]
    inner = vehicles / "VVERI901_V1_Trial"
    assert build_dataset("vveri901", inner).train == data.train
    (inner / "gallery.txt").write_text("./VVERI901_V1_Trial/2120/C32\n")
    with pytest.raises(DatasetError, match=r"gallery\.txt, entry 1: expected a line like '\./VVERI901"):
        build_dataset("vveri901", vehicles)
    (inner / "gallery.txt").write_text("./VVERI901_V1_Trial/2120/L09_C33_V07\n")
    with pytest.raises(DatasetError, match=r"L09_C33_V07: cannot list this folder"):
        build_dataset("vveri901", vehicles)
    (inner / "gallery.txt").unlink()
    with pytest.raises(DatasetError, match=r"a folder without 'gallery\.txt'"):
        build_dataset("vveri901", vehicles)
