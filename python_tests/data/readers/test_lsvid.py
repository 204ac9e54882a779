"""LS-VID: lists of name starts, query rows in HDF5, damaged files."""

import numpy as np
import pytest
from PIL import Image

from vreid_ext.data import DatasetError, build_dataset

h5py = pytest.importorskip("h5py")

TRAIN = [("0000", "0000_0000", 1), ("0000", "0000_0001", 2), ("0003", "0003_0000", 1)]
TEST = [
    ("0001", "0001_0000", 1), ("0001", "0001_0001", 15), ("0001", "0001_0010", 3),
    ("0002", "0002_0000", 1), ("0002", "0002_0001", 4),
]  # fmt: skip


def store_query(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["query"] = np.array(rows, dtype=np.float64).reshape(-1, 1).T  # MATLAB's column is HDF5's row


@pytest.fixture
def root(tmp_path):
    (tmp_path / "list_sequence").mkdir()
    for split, tracks in (("train", TRAIN), ("test", TEST)):
        lines = []
        for person, start, camera in tracks:
            prefix = f"tracklet_{split}/{person}/{start}"
            lines.append(f"{prefix} {int(person)}\n")
            (tmp_path / prefix).parent.mkdir(parents=True, exist_ok=True)
            for frame in range(1, 4):
                Image.new("RGB", (4, 8)).save(tmp_path / f"{prefix}_{camera:02}_{frame:04}.jpg")
        (tmp_path / "list_sequence" / f"list_seq_{split}.txt").write_text("".join(lines))
    store_query(tmp_path / "test" / "data" / "info_test.mat", [1, 4])
    return tmp_path


def test_layout(root):
    data = build_dataset("lsvid", root)
    assert [(t.pid, t.camid, len(t)) for t in data.train] == [(0, 1, 3), (0, 2, 3), (3, 1, 3)]
    assert [(t.pid, t.camid) for t in data.query] == [(1, 1), (2, 1)]
    assert [(t.pid, t.camid, len(t)) for t in data.gallery] == [(1, 15, 3), (1, 3, 3), (2, 4, 3)]
    assert data.query[0].paths[0].endswith("0001_0000_01_0001.jpg")
    assert data.junk
    assert "excluded" in data.protocol
    with_query = build_dataset("lsvid", root, gallery="with_query", check="decode")
    assert len(with_query.gallery) == 5
    assert "kept" in with_query.protocol


def test_layout_of_tf_clip(root):
    (root / "info").mkdir()
    (root / "list_sequence").rename(root / "info" / "list_sequence")
    (root / "test" / "data").rename(root / "info" / "data")
    assert len(build_dataset("lsvid", root).query) == 2


def test_a_short_start_of_a_name_is_not_that_of_a_longer_number(root):
    folder = root / "tracklet_test" / "0001"
    for path in sorted(folder.glob("0001_0001_*")):
        path.rename(folder / path.name.replace("0001_0001_15", "0001_1_15"))
    path = root / "list_sequence" / "list_seq_test.txt"
    path.write_text(path.read_text().replace("0001_0001 1", "0001_1 1"))
    Image.new("RGB", (4, 8)).save(folder / "0001_10_02_0001.jpg")
    data = build_dataset("lsvid", root)
    assert (data.gallery[0].camid, len(data.gallery[0])) == (15, 3)


def test_junk_is_dropped_and_counted(root):
    path = root / "list_sequence" / "list_seq_test.txt"
    path.write_text(path.read_text().replace("0002_0001 2", "0002_0001 -1"))
    data = build_dataset("lsvid", root)
    assert [t.pid for t in data.gallery] == [1, 1]
    assert any(line.startswith("1 tracklets of pid -1") for line in data.ignored)


def test_damage(root):
    lists, info = root / "list_sequence", root / "test" / "data" / "info_test.mat"
    with pytest.raises(ValueError, match=r"^gallery: expected 'with_query' or 'without_query', got 'all'"):
        build_dataset("lsvid", root, gallery="all")
    image = next((root / "tracklet_test" / "0001").glob("0001_0010_*_0001.jpg"))
    image.rename(image.with_name("0001_0010_05_0001.jpg"))
    with pytest.raises(DatasetError, match=r"expected '0001_0010' of one camera, got cameras \[3, 5\]"):
        build_dataset("lsvid", root)
    assert len(build_dataset("lsvid", root, on_error="skip").gallery) == 2
    image.with_name("0001_0010_05_0001.jpg").rename(image.with_name("0001_0010.jpg"))
    with pytest.raises(
        DatasetError, match=r"expected image names like 0000_0000_01_0001\.jpg, got '0001_0010"
    ):
        build_dataset("lsvid", root)
    for path in image.parent.glob("0001_0010*"):
        path.unlink()
    with pytest.raises(DatasetError, match="expected images whose names start with '0001_0010', got none"):
        build_dataset("lsvid", root)
    store_query(info, [1, 6])
    with pytest.raises(DatasetError, match=r"info_test\.mat: query: expected .* all from 1 to 5"):
        build_dataset("lsvid", root, on_error="skip")
    with h5py.File(info, "w") as file:
        file["other"] = [1]
    with pytest.raises(
        DatasetError, match=r"info_test\.mat: expected an HDF5 file with a numeric matrix 'query'"
    ):
        build_dataset("lsvid", root, on_error="skip")
    info.write_bytes(b"MATLAB")
    with pytest.raises(DatasetError, match=r"info_test\.mat: expected an HDF5 file"):
        build_dataset("lsvid", root, on_error="skip")
    info.unlink()
    with pytest.raises(DatasetError, match=r"info_test\.mat"):
        build_dataset("lsvid", root, on_error="skip")
    (lists / "list_seq_test.txt").write_text("tracklet_test/0001/0001_0000 one\n")
    with pytest.raises(DatasetError, match=r"list_seq_test\.txt, entry 1: expected a line like"):
        build_dataset("lsvid", root)
    (lists / "list_seq_test.txt").unlink()
    with pytest.raises(DatasetError, match=r"list_seq_test\.txt: cannot read this list"):
        build_dataset("lsvid", root)
    with pytest.raises(DatasetError, match="tracklet_test/ of LS-VID"):
        build_dataset("lsvid", root / "nowhere")
