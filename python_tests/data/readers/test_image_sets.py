"""Market-1501 and CUHK03: layouts, protocols, images as tracklets."""

import json
import os

import numpy as np
import pytest
import scipy.io
from PIL import Image

from vreid_ext.data import DatasetError, build_dataset


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (4, 8)).save(folder / name)


@pytest.fixture
def market(tmp_path):
    touch(
        tmp_path / "bounding_box_train",
        "0002_c1s1_000451_03.jpg", "0002_c1s1_000401_01.jpg", "0002_c2s1_000301_01.jpg",
        "0007_c3s3_077419_03.jpg",
    )  # fmt: skip
    touch(tmp_path / "query", "0001_c1s1_001051_00.jpg")
    touch(
        tmp_path / "bounding_box_test",
        "0001_c2s1_000301_00.jpg", "0001_c2s1_000201_00.jpg", "0000_c1s1_000151_01.jpg",
        "0000_c1s1_000152_01.jpg", "-1_c1s1_000401_03.jpg",
    )  # fmt: skip
    (tmp_path / "bounding_box_test" / "Thumbs.db").write_bytes(b"")
    return tmp_path


def shape(tracklets):
    return [(t.pid, t.camid, [os.path.basename(path)[-13:-4] for path in t.paths]) for t in tracklets]


def test_market_gives_every_image_or_those_of_a_camera(market):
    single = build_dataset("market1501", market)
    assert [(t.pid, t.camid, len(t)) for t in single.train] == [(2, 1, 1), (2, 1, 1), (2, 2, 1), (7, 3, 1)]
    assert [(t.pid, t.camid) for t in single.gallery] == [(0, 1), (0, 1), (1, 2), (1, 2)]  # without -1
    assert single.labels == {2: 0, 7: 1}
    assert "one tracklet per image" in single.protocol
    camera = build_dataset("market1501", market, images="camera", check="decode")
    assert shape(camera.train)[0] == (2, 1, ["000401_01", "000451_03"])  # in the order of frames
    assert [(t.pid, len(t)) for t in camera.gallery] == [
        (0, 1),
        (0, 1),
        (1, 2),
    ]  # distractors are many people
    assert len({t.name for t in camera.gallery}) == 3


def test_market_may_lie_one_folder_deeper_and_names_what_is_odd(market, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    (outer / "Market-1501-v15.09.15").symlink_to(market)
    assert len(build_dataset("market1501", outer).train) == 4
    touch(market / "query", "person.jpg")
    with pytest.raises(DatasetError, match=r"expected image names like 0002_c1s1.*, got '.*person\.jpg'"):
        build_dataset("market1501", market)
    with pytest.raises(ValueError, match=r"^images: expected one of single, camera, got 'all'"):
        build_dataset("market1501", market, images="all")
    with pytest.raises(DatasetError, match="bounding_box_train"):
        build_dataset("market1501", outer / "nowhere")


@pytest.fixture
def cuhk(tmp_path):
    names = [
        f"{pair}_{person:03}_{view}_{number:02}.png"
        for pair, people in ((1, (1, 2, 3)), (2, (1,)))
        for person in people
        for view, numbers in ((1, (1, 2)), (2, (6,)))
        for number in numbers
    ]
    touch(tmp_path / "images_detected", *names)
    views = [int(name[6]) for name in names]
    labels = np.repeat([1, 2, 3, 4], 3)
    index = {"train_idx": [1, 2, 3, 10, 11, 12], "query_idx": [4, 6, 7, 9], "gallery_idx": [5, 8, 6, 9]}
    fields = {"labels": labels[:, None], "camId": np.array(views)[:, None]}
    fields |= {key: np.array(value)[:, None] for key, value in index.items()}
    fields["filelist"] = np.array(names, dtype=object)[:, None]
    scipy.io.savemat(tmp_path / "cuhk03_new_protocol_config_detected.mat", fields)
    return tmp_path


def test_cuhk_new_protocol_is_the_files(cuhk):
    data = build_dataset("cuhk03", cuhk)
    assert [(t.pid, t.camid) for t in data.train] == [(1, 1), (1, 1), (1, 2), (4, 3), (4, 3), (4, 4)]
    assert [(t.pid, t.camid) for t in data.query] == [(2, 1), (2, 2), (3, 1), (3, 2)]
    assert [(t.pid, t.camid) for t in data.gallery] == [(2, 1), (2, 2), (3, 1), (3, 2)]
    assert "767 / 700" in data.protocol
    camera = build_dataset("cuhk03", cuhk, images="camera")
    assert [len(t) for t in camera.train] == [2, 1, 2, 1]


def test_cuhk_images_that_the_file_is_not_of_are_refused(cuhk):
    (cuhk / "images_detected" / "1_002_1_01.png").rename(cuhk / "images_detected" / "1_002_2_07.png")
    with pytest.raises(DatasetError, match="got person 2, camera 1"):
        build_dataset("cuhk03", cuhk)
    (cuhk / "images_detected" / "1_002_2_07.png").unlink()
    with pytest.raises(DatasetError, match="expected labels of 11 images, got 12"):
        build_dataset("cuhk03", cuhk)
    (cuhk / "cuhk03_new_protocol_config_detected.mat").unlink()
    with pytest.raises(DatasetError, match="no such file; it is published with"):
        build_dataset("cuhk03", cuhk)


def test_cuhk_classic_protocol_draws_people_and_keeps_them(cuhk):
    first = build_dataset("cuhk03", cuhk, protocol="classic", split=3)
    test = {t.pid for t in first.query}
    assert len(test) == 2
    assert {t.pid for t in first.train} == {1, 2, 3, 4} - test
    assert [t.pid for t in first.gallery] == sorted(test)  # one image of each
    assert {t.camid % 2 for t in first.query} == {1}
    assert {t.camid % 2 for t in first.gallery} == {0}
    assert len(first.query) == 4
    kept = json.loads((cuhk / "splits_cuhk03_seed0.json").read_text())
    assert len(kept) == 20
    assert set(kept[3]) == test
    assert build_dataset("cuhk03", cuhk, protocol="classic", split=3).gallery == first.gallery
    with pytest.raises(ValueError, match=r"^split: expected 0 to 19, got 20"):
        build_dataset("cuhk03", cuhk, protocol="classic", split=20)
    (cuhk / "splits_cuhk03_seed0.json").write_text("[[99]]")
    with pytest.raises(DatasetError, match="expected pids that have images"):
        build_dataset("cuhk03", cuhk, protocol="classic")


@pytest.mark.parametrize("folder", ["", "cuhk03_release"])
def test_cuhk_classic_protocol_takes_the_published_splits(cuhk, folder):
    h5py = pytest.importorskip("h5py", reason="needs the extra [hdf5]")
    path = cuhk / folder / "cuhk-03.mat"
    path.parent.mkdir(exist_ok=True)
    places = sorted({tuple(map(int, p.name.split("_")[:2])) for p in (cuhk / "images_detected").iterdir()})
    with h5py.File(path, "w") as file:  # as MATLAB 7.3 writes a cell of 20 matrices
        cells = file.create_dataset("testsets", (1, 20), h5py.ref_dtype)
        for number in range(20):
            rows = np.array([places[number % 4], places[(number + 1) % 4]], float)
            cells[0, number] = file.create_dataset(f"#refs#/{number}", data=rows.T).ref
    data = build_dataset("cuhk03", cuhk, protocol="classic", split=6)
    assert {t.pid for t in data.query} == {3, 4}
    assert {t.pid for t in data.train} == {1, 2}
    assert "split 7 of 20 (published)" in data.protocol
    drawn = build_dataset("cuhk03", cuhk, protocol="classic", split=6, split_seed=0)
    assert "split 7 of 20 (drawn from seed 0)" in drawn.protocol
    with h5py.File(path, "a") as file:
        file["#refs#/6"][0, 0] = 9
    with pytest.raises(DatasetError, match=r"split 6: expected images of all .* got none for 1 of them"):
        build_dataset("cuhk03", cuhk, protocol="classic", split=6)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"expected an HDF5 file with 20 matrices in 'testsets', got "):
        build_dataset("cuhk03", cuhk, protocol="classic", split=6)
