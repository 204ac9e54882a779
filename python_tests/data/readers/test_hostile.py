"""Damaged data sets: an error that says what is wrong, or a counted skip; never a wrong identity or split."""

import os
import random
import re
import shutil
import struct
import zlib
from pathlib import Path

import pytest

from vreid_ext.data import attach_joints, build_dataset, read_image
from vreid_ext.data.records import DatasetError
from vreid_ext.data.synth import synthesize

LAYOUTS = {"mars": "mars", "ilids": "ilids", "prid": "prid", "dukev": "mars", "tracklet_folder": "mars"}
STEP = re.compile(r"(\d{4}|00-1)C(\d)T(\d{4})F(\d{3})\.jpg")


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    """A small undamaged set in every layout."""
    base = tmp_path_factory.mktemp("whole")
    for layout in ("mars", "ilids", "prid"):
        frames = 28 if layout == "prid" else 2
        synthesize(
            base / layout,
            layout=layout,
            ids=6,
            frames=frames,
            size=(32, 16),
            **({"cameras": 2, "tracklets": 1} if layout == "mars" else {}),
        )
    for image in sorted((base / "mars").glob("bbox_*/*/*.jpg")):
        pid, camera, track, frame = STEP.fullmatch(image.name).groups()
        if pid == "00-1":
            continue
        train = image.parents[1].name == "bbox_train"
        for part in ("train",) if train else ("query", "gallery"):
            duke = base / "dukev" / part / pid / track / f"{pid}_C{camera}_F{frame}_X1.jpg"
            own = base / "tracklet_folder" / part / pid / f"cam{camera}" / track / f"{frame}.jpg"
            for copy in (duke, own):
                copy.parent.mkdir(parents=True, exist_ok=True)
                os.link(image, copy)
    return {name: base / name for name in LAYOUTS}


def bomb(path: Path) -> None:
    """A PNG of a few bytes that claims 100,000 x 100,000 pixels."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.unlink(missing_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", b"") + part(b"IEND", b""))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def damage(root: Path, draw: random.Random) -> str:
    """Do one thing to a tree; what it was."""
    entries = sorted(root.rglob("*"))
    special = [path for path in entries if path.suffix in (".mat", ".csv", ".json", ".txt")]
    path = draw.choice(special if special and draw.random() < 0.5 else entries)
    kind = draw.choice(
        [
            "remove",
            "truncate",
            "empty",
            "noise",
            "flip",
            "text",
            "other kind",
            "loop",
            "bomb",
            "odd name",
            "twice",
        ]
    )
    content = path.read_bytes() if path.is_file() else b""
    if kind == "flip" and not content:
        kind = "noise"
    if kind in ("truncate", "empty", "noise", "flip", "text", "bomb") and not path.is_file():
        kind = "remove"
    if kind in ("truncate", "empty", "noise", "flip", "text", "bomb"):
        path.unlink()  # it is one of many links to the undamaged file
    if kind == "remove":
        remove(path)
    elif kind == "truncate":
        path.write_bytes(content[: draw.randrange(len(content) + 1)])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(draw.randbytes(draw.randrange(1, 2000)))
    elif kind == "flip":
        changed = bytearray(content)
        for _ in range(draw.randrange(1, 8)):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
    elif kind == "text":
        wrong = draw.choice(
            [
                b"[" * 100_000,
                b'{"a": ' * 5000,
                b"1" * 5000,
                b"../../etc/passwd\n" * 50,
                b"\xff\xfe\n,,,",
                b"null",
            ]
        )
        path.write_bytes(wrong)
    elif kind == "other kind":
        folder = path.is_dir()
        remove(path)
        path.write_bytes(b"a file") if folder else path.mkdir()
    elif kind == "loop":
        remove(path)
        path.symlink_to(draw.choice([path, path.parent, root]))
    elif kind == "bomb":
        bomb(path)
    elif kind == "odd name":
        name = draw.choice(["a\nb", "été", "\U0001f600", " ", "0001 (copy)", "x" * 200, "\udcff"])
        path.rename(path.with_name(name + draw.choice(["", path.suffix])))
    elif kind == "twice":
        number = f"{draw.randrange(1, 9999):04d}"
        copy = path.with_name(
            path.name.replace("0001", number, 1) if "0001" in path.name else "copy-" + path.name
        )
        if path.exists() and not copy.exists():
            shutil.copytree(path, copy, symlinks=True) if path.is_dir() else shutil.copy(path, copy)
    return f"{kind} {path.relative_to(root)}"


def identity(layout: str, path: str) -> tuple[str, ...]:
    """Whose the image is, from its own place: person and camera."""
    parts = Path(path).parts
    if layout in ("mars", "dukev"):
        return tuple(map(str, map(int, re.match(r"(\d{4})_?C(\d+)", parts[-1]).groups())))
    if layout == "tracklet_folder":
        return parts[-4], parts[-3]
    return parts[-2], parts[-3]


def check(layout: str, root: Path, draw: random.Random) -> str:
    """Read the set in one of its ways; "error" or "read"."""
    options = {"check": draw.choice(["exists", "decode", "none"]), "on_error": draw.choice(["raise", "skip"])}
    try:
        data = build_dataset(layout, root, **options)
        if layout == "mars":
            attach_joints(data, root / "joints.json")
    except DatasetError:
        return "error"
    parts = {"train": data.train, "query": data.query, "gallery": data.gallery}
    numbers: dict[tuple[str, ...], set] = {}
    for part in parts.values():
        for tracklet in part:
            assert tracklet.paths
            whose = {identity(layout, path) for path in tracklet.paths}
            assert len(whose) == 1, f"{tracklet.name} mixes {whose}"
            assert all(Path(os.path.normpath(path)).is_relative_to(root) for path in tracklet.paths)
            numbers.setdefault(whose.pop(), set()).add((tracklet.pid, tracklet.camid))
    people: dict[str, set[int]] = {}
    for (person, _), found in numbers.items():
        people.setdefault(person, set()).update(pid for pid, _ in found)
    assert all(len(pids) == 1 for pids in people.values()), people
    assert len({min(pids) for pids in people.values()}) == len(people), "two people under one pid"
    if layout in ("ilids", "prid"):
        assert not {t.pid for t in data.train} & {t.pid for t in (*data.query, *data.gallery)}
    return "read"


def damaged(layout: str, whole: Path, folder: Path, count: int, seed: int) -> dict[str, int]:
    outcomes = {"error": 0, "read": 0}
    for number in range(count):
        draw = random.Random(f"{layout} {seed} {number}")
        root = folder / f"{number}"
        shutil.copytree(whole, root, copy_function=os.link)
        done = [damage(root, draw) for _ in range(draw.choice([1, 1, 2, 3])) if any(root.iterdir())]
        try:
            outcomes[check(layout, root, draw)] += 1
        except Exception as error:
            raise AssertionError(f"{layout}, seed {seed}, number {number}: {done}") from error
        shutil.rmtree(root)
    return outcomes


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_sets(sets, layout, tmp_path):
    outcomes = damaged(layout, sets[layout], tmp_path, 60, seed=0)
    assert min(outcomes.values()) > 5, outcomes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ten_thousand_damaged_sets(sets, layout, tmp_path):
    print(layout, damaged(layout, sets[layout], tmp_path, 2000, seed=1))


def test_an_image_that_claims_too_much_is_refused_from_its_header(tmp_path):
    bomb(tmp_path / "bomb.png")
    with pytest.raises(DatasetError, match=r"bomb\.png: cannot be read as an image.*10000000000 pixels"):
        read_image(str(tmp_path / "bomb.png"))
