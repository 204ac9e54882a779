"""iLIDS-VID and PRID2011: layout, splits, and what is wrong with the files."""

import json
import shutil
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vreid_ext.data import DatasetError, build_dataset
from vreid_ext.data.readers.two_cameras import draw_splits
from vreid_ext.data.synth import synthesize


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    return {
        layout: synthesize(
            tmp_path_factory.mktemp("pairs") / "with space" / layout,
            layout=layout, ids=10, frames=3, size=(32, 16), seed=2,
        )
        for layout in ("ilids", "prid")
    }  # fmt: skip


@pytest.fixture
def ilids(rendered, tmp_path) -> Path:
    return Path(shutil.copytree(rendered["ilids"], tmp_path / "ilids"))


@pytest.fixture
def prid(rendered, tmp_path) -> Path:
    return Path(shutil.copytree(rendered["prid"], tmp_path / "prid"))


SEQUENCES = Path("i-LIDS-VID/sequences")
MATRIX = Path("train-test people splits/train_test_splits_ilidsvid.mat")


def people(tracklets) -> set[str]:
    return {tracklet.name.partition("/")[2] for tracklet in tracklets}


def test_persons_outside_the_protocol_are_counted(ilids, prid):
    for camera in ("cam1", "cam2"):
        shutil.copytree(ilids / SEQUENCES / camera / "person001", ilids / SEQUENCES / camera / "person999")
    data = build_dataset("ilids", ilids)
    assert "1 persons not in split 0, such as person999" in data.ignored
    folder = prid / "prid_2011/multi_shot/cam_a"
    only_once = len({path.name for path in folder.parent.glob("*/*")}) - 9
    assert only_once > 0
    (line,) = build_dataset("prid", prid, min_frames=3).ignored
    assert line.startswith(f"{only_once} persons without 3 frames in both cameras, such as ")
    shutil.copy(next(folder.glob("*/*.png")), folder / "stray.png")
    with pytest.raises(DatasetError, match=r"cam_a: expected folders of persons, got 1 images \(stray.png\)"):
        build_dataset("prid", prid, min_frames=3)


@pytest.mark.parametrize(("name", "used"), [("ilids", 10), ("prid", 9)])
def test_every_split_halves_the_people(rendered, name, used):
    options = {"min_frames": 3} if name == "prid" else {}
    tests = set()
    for split in range(10):
        data = build_dataset(name, rendered[name], split=split, **options)
        assert people(data.train) & people(data.query) == set()
        assert len(people(data.train) | people(data.query)) == used
        assert people(data.query) == people(data.gallery)
        assert len(data.query) == len(data.gallery) == used // 2
        assert {t.camid for t in data.query} == {1}
        assert {t.camid for t in data.gallery} == {2}
        assert [t.pid for t in data.query] == [t.pid for t in data.gallery]
        assert len(data.train) == 2 * data.num_train_pids
        assert all(len(t) == 3 for t in data.train)
        assert f"split {split + 1} of 10 (published splits)" in data.protocol
        tests.add(frozenset(people(data.query)))
    assert len(tests) > 5


def test_the_first_half_of_a_row_is_the_test_set(ilids):
    from scipy.io import savemat

    rows = np.stack([np.roll(np.arange(1, 11), -shift) for shift in range(10)])
    savemat(ilids / MATRIX, {"ls_set": rows})
    data = build_dataset("ilids", ilids, split=1)
    assert people(data.query) == {f"person{number:03d}" for number in (2, 3, 4, 5, 6)}


def test_without_the_published_file_the_splits_of_a_seed_are_kept(ilids):
    (ilids / MATRIX).unlink()
    data = build_dataset("ilids", ilids, split=3)
    kept = ilids / "splits_ilids_seed0.json"
    assert people(data.query) == set(json.loads(kept.read_text())[3]["test"])
    assert "drawn from seed 0" in data.protocol
    other = build_dataset("ilids", ilids, split=3, split_seed=5)
    assert people(other.query) != people(data.query)
    again = build_dataset("ilids", ilids, split=3)
    assert people(again.query) == people(data.query)


def test_splits_depend_on_names_and_seed_alone():
    names = [f"p{number}" for number in range(7)]
    assert draw_splits(names, 1) == draw_splits(names[::-1], 1)
    assert draw_splits(names, 1) != draw_splits(names, 2)
    assert all(len(split["train"]) == 4 and len(split["test"]) == 3 for split in draw_splits(names, 1))


def test_prid_uses_people_with_enough_frames_in_both_cameras(prid):
    (prid / "splits_prid2011.json").unlink()
    victim = prid / "prid_2011/multi_shot/cam_b/person_0003"
    (victim / "00003.png").unlink()
    data = build_dataset("prid", prid, min_frames=3)
    everyone = people(data.train) | people(data.query)
    assert "person_0003" not in everyone
    assert "person_0010" not in everyone  # seen by cam_a only
    assert len(everyone) == 8


def test_frames_are_those_that_are_there_in_order(ilids):
    folder = ilids / SEQUENCES / "cam1" / "person001"
    images = sorted(folder.iterdir())
    images[0].rename(folder / "cam1_person001_00009.PNG")
    data = build_dataset("ilids", ilids)
    found = next(t for t in (*data.train, *data.query) if t.name == "cam1/person001")
    assert [Path(path).name for path in found.paths] == [
        images[1].name, images[2].name, "cam1_person001_00009.PNG"
    ]  # fmt: skip


def break_one_camera(root: Path) -> None:
    shutil.rmtree(root / SEQUENCES / "cam2" / "person004")


def break_empty_folder(root: Path) -> None:
    for image in (root / SEQUENCES / "cam1" / "person004").iterdir():
        image.unlink()


def break_image(root: Path) -> None:
    image = next((root / SEQUENCES / "cam1" / "person004").iterdir())
    image.write_bytes(image.read_bytes()[:90])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_one_camera, "expected a folder person004 in both cameras, got it only in cam1"),
        (break_empty_folder, "person004: expected at least 1 images, got 0"),
        (break_image, "person004"),
    ],
)
def test_an_unusable_person_is_named_or_left_out_of_both_cameras(ilids, damage, message):
    damage(ilids)
    with pytest.raises(DatasetError, match=message):
        build_dataset("ilids", ilids, check="decode")
    data = build_dataset("ilids", ilids, check="decode", on_error="skip")
    assert "person004" not in people(data.train) | people(data.query) | people(data.gallery)
    assert len(people(data.train) | people(data.query)) == 9
    assert any(re_match in reason for reason in data.skipped for re_match in ("person004",))


def matrix(values) -> object:
    def damage(root: Path) -> None:
        from scipy.io import savemat

        savemat(root / MATRIX, {"ls_set": np.array(values)})

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (matrix([[1, 2, 3, 11]]), "ls_set: expected a matrix of indices from 1 to 10 "),
        (matrix([[0, 1]]), "ls_set: expected a matrix of indices from 1 to 10 "),
        (matrix(np.ones((1, 1))), "split 0: expected usable test people, got none"),
        (matrix([[1, 2, 2, 3]]), "split 0: expected disjoint train and test people, got person002 in both"),
        (lambda root: (root / MATRIX).write_bytes(b"no"), "cannot be read as a MATLAB file"),
        (lambda root: shutil.rmtree(root / SEQUENCES), "got a folder without 'i-LIDS-VID/sequences'"),
    ],
)
def test_damaged_ilids_is_named(ilids, damage, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        damage(ilids)
    with pytest.raises(DatasetError, match=message):
        build_dataset("ilids", ilids)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "splits_prid2011.json: expected a list"),
        ('[{"train": ["person_0001"]}]', "splits_prid2011.json: expected a list"),
        ("[" * 100_000, "splits_prid2011.json: expected a list"),
        (
            '[{"train": ["../person_0001"], "test": []}]',
            "splits_prid2011.json: .*expected folder names, got '../person_0001'",
        ),
        ('[{"train": [".."], "test": []}]', "expected folder names, got '..'"),
        (r'[{"train": ["a\u0000"], "test": []}]', "expected folder names, got"),
        ('[{"train": ["person_0001"], "test": []}]', "split 0: expected usable test people, got none"),
        ('[{"train": ["person_0001"], "test": ["person_0777"]}]', "person_0777"),
    ],
)
def test_damaged_prid_splits_are_named(prid, text, message):
    (prid / "splits_prid2011.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        build_dataset("prid", prid, min_frames=3)


def test_too_short_tracklets_are_named(prid):
    with pytest.raises(
        DatasetError, match="expected people with at least 28 frames in both cameras, got none"
    ):
        build_dataset("prid", prid)


@pytest.mark.parametrize("split", [10, -1])
def test_a_split_that_is_not_there(rendered, split):
    with pytest.raises(ValueError, match=r"split: expected 0 to 9, got .*"):
        build_dataset("ilids", rendered["ilids"], split=split)


@pytest.mark.parametrize("split", [True, "all"])
def test_a_split_that_is_no_number(rendered, split):
    with pytest.raises(TypeError, match=r"split: expected int for data set 'ilids', got"):
        build_dataset("ilids", rendered["ilids"], split=split)


def test_splits_that_cannot_be_kept_say_so(ilids, monkeypatch):
    (ilids / MATRIX).unlink()

    def read_only(*_args, **_options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", read_only)
    with pytest.raises(DatasetError, match=r"cannot write the splits drawn from seed 0 .*Read-only"):
        build_dataset("ilids", ilids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "cuhk"}, "layout: expected 'mars', 'ilids' or 'prid'"),
        ({"layout": "ilids", "cameras": 3}, "cameras: expected 2 to 2, got 3"),
        ({"layout": "prid", "tracklets": 2}, "tracklets: expected 1 to 1, got 2"),
    ],
)
def test_layouts_of_two_cameras_are_of_two_cameras(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        synthesize(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_same_arguments_same_bytes(rendered, tmp_path):
    again = synthesize(tmp_path / "set", layout="ilids", ids=10, frames=3, size=(32, 16), seed=2)
    files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert len(files) == 10 * 2 * 3 + 2
    for path in files:
        assert (again / path).read_bytes() == (rendered["ilids"] / path).read_bytes()
    with Image.open(again / SEQUENCES / "cam1/person001/cam1_person001_00001.png") as image:
        assert image.size == (16, 32)


@pytest.mark.parametrize(("layout", "cameras"), [("ilids", ("cam1", "cam2")), ("prid", ("cam_a", "cam_b"))])
def test_a_name_in_nfc_and_in_nfd_is_one_person(rendered, tmp_path, layout, cameras):
    root = Path(shutil.copytree(rendered[layout], tmp_path / layout))
    options = {"min_frames": 3} if layout == "prid" else {}
    before = build_dataset(layout, root, split_seed=0, **options)
    person = min(people(before.query))
    (root / f"splits_{layout}_seed0.json").unlink()
    folders = [next(root.rglob(f"{camera}/{person}")) for camera in cameras]
    names = [unicodedata.normalize(form, f"{person}é") for form in ("NFC", "NFD")]
    for folder, name in zip(folders, names, strict=True):
        folder.rename(folder.with_name(name))
    after = build_dataset(layout, root, split_seed=0, **options)
    assert after.query[0].name == f"{cameras[0]}/{names[0]}"
    assert after.gallery[0].name == f"{cameras[1]}/{names[0]}"
    assert [Path(path).parent.name for path in (after.query[0].paths[0], after.gallery[0].paths[0])] == names
    for part in ("train", "query", "gallery"):
        assert [item.pid for item in getattr(after, part)] == [item.pid for item in getattr(before, part)]

    file = root / f"splits_{layout}_seed0.json"  # written on another system
    splits = json.loads(file.read_text("utf-8"))
    decomposed = [
        {part: [unicodedata.normalize("NFD", n) for n in ns] for part, ns in s.items()} for s in splits
    ]
    file.write_text(json.dumps(decomposed), "utf-8")
    again = build_dataset(layout, root, split_seed=0, **options)
    assert (again.train, again.query, again.gallery) == (after.train, after.query, after.gallery)

    shutil.copytree(folders[0].with_name(names[0]), folders[0].with_name(names[1]))
    with pytest.raises(DatasetError, match="two with names that differ only in Unicode normalization"):
        build_dataset(layout, root, split_seed=0, **options)
