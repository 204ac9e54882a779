"""The MARS loader on the data set's real matrices and on small sets of images."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat

from vreid_ext import metrics
from vreid_ext.data import DatasetError, build_dataset


def shared(name):
    base = Path(os.environ.get("VREID_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not (base / name).exists():
        pytest.skip(f"no {name} in {base}; set VREID_SHARED_DATA to the folder with the real metadata")
    return base / name


def name_of(pid, camid, track, frame):
    return f"{'00-1' if pid < 0 else f'{pid:04}'}C{camid}T{track:04}F{frame:03}.jpg"


def names_of(table, numbers):
    """Image names that agree with the rows start, end, pid, camera; numbers: tracklets by (pid, camera)."""
    names = []
    for start, end, pid, camid in table.tolist():
        numbers[pid, camid] = track = numbers.get((pid, camid), 0) + 1
        names += [name_of(pid, camid, track, frame) for frame in range(1, end - start + 2)]
    return names


@pytest.fixture(scope="module")
def real_root(tmp_path_factory):
    source = shared("mars_info")
    root = tmp_path_factory.mktemp("mars")
    info = root / "info"
    info.mkdir()
    for file in source.glob("*.mat"):
        (info / file.name).symlink_to(file.resolve())
    for split in ("train", "test"):
        table = loadmat(source / f"tracks_{split}_info.mat")[f"track_{split}_info"]
        (info / f"{split}_name.txt").write_text("\n".join(names_of(table, {})))
    return root


@pytest.mark.parametrize(("gallery", "size"), [("with_query", 11310), ("without_query", 9330)])
def test_real_metadata_gives_the_published_counts(real_root, gallery, size):
    data = build_dataset("mars", real_root, gallery=gallery, check="none")
    assert (len(data.train), len(data.query), len(data.gallery)) == (8298, 1980, size)
    assert data.num_train_pids == 625 == len(data.labels)
    assert sum(t.pid == 0 for t in data.gallery) == 3248
    assert min(t.pid for t in data.gallery) == 0
    assert min(map(len, data.train + data.gallery + data.query)) == 2
    assert max(map(len, data.train + data.gallery + data.query)) == 920
    assert not data.labels.keys() & {t.pid for t in data.query}
    assert ("kept" in data.protocol) == (gallery == "with_query")


@pytest.mark.parametrize(("gallery", "valid"), [("with_query", 1980), ("without_query", 1840)])
def test_real_metadata_gives_the_published_number_of_valid_queries(real_root, gallery, valid):
    data = build_dataset("mars", real_root, check="none", gallery=gallery)
    seen = {}
    for t in data.gallery:
        seen.setdefault(t.pid, set()).add(t.camid)
    assert sum(bool(seen.get(q.pid, set()) - {q.camid}) for q in data.query) == valid

    splits = data.query, data.gallery
    generator = torch.Generator().manual_seed(0)
    result = metrics.evaluate(
        *(torch.randn(len(split), 4, generator=generator) for split in splits),
        *([t.pid for t in split] for split in splits),
        *([t.camid for t in split] for split in splits),
    )
    assert result.valid_queries == valid


def test_real_junk_and_first_paths(real_root):
    table = loadmat(real_root / "info" / "tracks_test_info.mat")["track_test_info"]
    assert (table[:, 2] == -1).sum() == 870
    data = build_dataset("mars", real_root, check="none")
    first = data.train[0]
    assert first.name == "0001C1T0001"
    assert first.paths[0] == str(real_root / "bbox_train" / "0001" / "0001C1T0001F001.jpg")
    assert (first.pid, first.camid, len(first)) == (1, 1, 16)


TRAIN = [(1, 1, 2), (1, 2, 1), (3, 1, 3)]
TEST = [(-1, 1, 2), (0, 3, 2), (2, 1, 2), (2, 2, 2), (2, 2, 1)]
QUERY = [3]


def matrix(tracks):
    ends = np.cumsum([frames for *_, frames in tracks])
    return np.array([[end - n + 1, end, pid, cam] for end, (pid, cam, n) in zip(ends, tracks)])


@pytest.fixture
def root(tmp_path):
    """A MARS of eight tracklets, in a folder with a space in its name."""
    root = tmp_path / "my mars"
    (root / "info").mkdir(parents=True)
    for split, tracks in (("train", TRAIN), ("test", TEST)):
        table = matrix(tracks)
        names = names_of(table, {})
        savemat(root / "info" / f"tracks_{split}_info.mat", {f"track_{split}_info": table})
        (root / "info" / f"{split}_name.txt").write_text("\n".join(names))
        for name in names:
            path = root / f"bbox_{split}" / name[:4] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 16), (len(name), 100, 50)).save(path)
    savemat(root / "info" / "query_IDX.mat", {"query_IDX": np.array([QUERY], dtype=np.uint16)})
    return root


def test_small_set_drops_junk_and_keeps_distractors(root):
    data = build_dataset("mars", root)
    assert [(t.pid, t.camid) for t in data.query] == [(2, 1)]
    assert [(t.pid, t.camid) for t in data.gallery] == [(0, 3), (2, 1), (2, 2), (2, 2)]
    assert data.labels == {1: 0, 3: 1}
    assert data.junk
    assert "mars" in data.summary()
    assert data.protocol in data.summary()


def test_what_no_table_names_is_counted(root):
    assert build_dataset("mars", root).ignored == ["1 tracklets of pid -1, such as 00-1C1T0001F001.jpg"]
    for name in ("0002/spare.jpg", "0777/0777C1T0001F001.jpg"):
        path = root / "bbox_test" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 16)).save(path)
    (root / "bbox_train/.DS_Store").touch()
    assert build_dataset("mars", root).ignored == [
        f"1 folders not listed in the tables, such as {root / 'bbox_test/0777'}",
        f"1 hidden, such as {root / 'bbox_train/.DS_Store'}",
        f"1 images that belong to no tracklet, such as {root / 'bbox_test/0002'}",
        "1 tracklets of pid -1, such as 00-1C1T0001F001.jpg",
    ]


def test_attributes_are_kept_with_their_tracklets(root):
    row = "1,2,1,4,5,1,0,1,0,0,0,1,8,9,3,1,0,1,0,1,0,1,0,1"
    (root / "mars_attributes.csv").write_bytes("编号".encode("gbk") + b"," * 23 + b"\n" + row.encode())
    data = build_dataset("mars", root)
    assert [t.attributes is None for t in data.train] == [True, False, True]
    assert data.train[1].attributes["bottom_color"] == 9
    assert all(t.attributes is None for t in data.gallery)


@pytest.mark.parametrize("check", ["exists", "decode"])
def test_missing_image_is_named_or_its_tracklet_skipped(root, check):
    missing = root / "bbox_train" / "0001" / "0001C2T0001F001.jpg"
    missing.unlink()
    with pytest.raises(DatasetError, match="on_error='skip'") as error:
        build_dataset("mars", root, check=check)
    assert str(missing) in str(error.value)
    data = build_dataset("mars", root, check=check, on_error="skip")
    assert [t.name for t in data.train] == ["0001C1T0001", "0003C1T0001"]
    assert len(data.skipped) == 1
    assert str(missing) in data.skipped[0]
    assert "skipped 1 tracklets" in data.summary()


def test_missing_person_folder_is_named(root):
    for file in (root / "bbox_train" / "0003").iterdir():
        file.unlink()
    (root / "bbox_train" / "0003").rmdir()
    with pytest.raises(DatasetError, match=r"0003.*cannot list"):
        build_dataset("mars", root)


def test_truncated_image_is_found_by_decoding(root):
    broken = root / "bbox_test" / "0002" / "0002C2T0002F001.jpg"
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(DatasetError, match=r"0002C2T0002F001\.jpg: cannot be read as an image"):
        build_dataset("mars", root, check="decode")
    assert len(build_dataset("mars", root, check="decode", on_error="skip").gallery) == 3
    assert len(build_dataset("mars", root, check="exists").gallery) == 4


def test_skipped_query_leaves_the_gallery_too(root):
    (root / "bbox_test" / "0002" / "0002C1T0001F002.jpg").unlink()
    data = build_dataset("mars", root, on_error="skip")
    assert not data.query
    assert [(t.pid, t.camid) for t in data.gallery] == [(0, 3), (2, 2), (2, 2)]


def test_upper_case_file_is_found(root):
    path = root / "bbox_train" / "0001" / "0001C2T0001F001.jpg"
    path.rename(path.with_suffix(".JPG"))
    assert build_dataset("mars", root).train[1].paths == (str(path.with_suffix(".JPG")),)


def test_names_of_another_split_are_refused(root):
    info = root / "info"
    (info / "train_name.txt").write_text((info / "test_name.txt").read_text())
    with pytest.raises(DatasetError, match=r"train_name.txt.*the same release"):
        build_dataset("mars", root)


def test_short_name_list_is_refused(root):
    file = root / "info" / "test_name.txt"
    file.write_text("\n".join(file.read_text().split()[:-1]))
    with pytest.raises(DatasetError, match=r"test_name.txt: expected at least 9 image names, .* got 8"):
        build_dataset("mars", root)


def test_a_name_that_leads_out_of_the_set_is_refused(root):
    file = root / "info" / "train_name.txt"
    names = file.read_text().split()
    last = names[0][:6] + "T0001/../../../elsewhere/" + names[1]
    file.write_text("\n".join([names[0], last, *names[2:]]))
    with pytest.raises(DatasetError, match=r"train_name.txt, line 2: expected an image name like .*, got '"):
        build_dataset("mars", root, check="none")


def wrong_key(info):
    savemat(info / "tracks_test_info.mat", {"track_train_info": matrix(TEST)})


def wrong_shape(info):
    savemat(info / "tracks_test_info.mat", {"track_test_info": matrix(TEST)[:, :3]})


def reversed_rows(info):
    savemat(
        info / "tracks_test_info.mat", {"track_test_info": matrix(TEST)[:, [1, 0, 2, 3]] * [[2, 1, 1, 1]]}
    )


def no_matrix(info):
    (info / "tracks_test_info.mat").write_bytes(b"<html>Not found</html>")


def absent(info):
    (info / "tracks_test_info.mat").unlink()


def query_outside(info):
    savemat(info / "query_IDX.mat", {"query_IDX": np.array([[6]])})


@pytest.mark.parametrize("spoil", [wrong_key, wrong_shape, reversed_rows, no_matrix, absent, query_outside])
def test_wrong_info_file_is_named(root, spoil):
    spoil(root / "info")
    with pytest.raises(
        DatasetError, match=r"query_IDX\.mat" if spoil is query_outside else r"tracks_test_info\.mat"
    ):
        build_dataset("mars", root)


def test_wrong_root_says_what_is_wanted(tmp_path):
    with pytest.raises(DatasetError, match=r"expected a folder with bbox_train.* not a folder"):
        build_dataset("mars", tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="got a folder without 'info'"):
        build_dataset("mars", tmp_path)


@pytest.mark.parametrize("option", [{"gallery": "both"}, {"check": "maybe"}, {"on_error": "ignore"}])
def test_bad_option_is_named(root, option):
    with pytest.raises(
        ValueError, match=f"^{next(iter(option))}: expected .*, got '{next(iter(option.values()))}'"
    ):
        build_dataset("mars", root, **option)


def test_reading_writes_nothing(root):
    def listing():
        return sorted((str(p), p.stat().st_mtime_ns) for p in root.rglob("*"))

    before = listing()
    build_dataset("mars", root, check="decode")
    assert listing() == before


def test_g2a_vreid_has_the_layout_of_mars(root):
    data = build_dataset("g2a_vreid", root)
    assert data.name == "g2a_vreid"
    assert [(t.pid, t.camid) for t in data.gallery] == [(0, 3), (2, 2), (2, 2)]
    assert data.protocol == "G2A-VReID, query tracklets excluded from the gallery"
    (root / "info" / "query_IDX.mat").unlink()
    with pytest.raises(DatasetError, match=r"query_IDX\.mat: cannot be read"):
        build_dataset("g2a_vreid", root)
    with pytest.raises(DatasetError, match="of G2A-VReID"):
        build_dataset("g2a_vreid", root / "info")
