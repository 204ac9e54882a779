"""Fuzzes the parsers of data sets and recipes: `python parsers.py PARSER [options of libFuzzer]`.

Whatever the bytes: a result of the promised form, or the error that the parser promises. Run by
test_fuzz.py; a corpus to start from is written there.
"""

import contextlib
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import numpy as np

with atheris.instrument_imports(
    include=[
        "vreid_ext.data",
        "vreid_ext.features",
        "vreid_ext.engine.config",
        "vreid_ext.engine.recipe_text",
    ]
):
    from vreid_ext.attributes import attribute_sizes
    from vreid_ext.data import Tracklet, TrackletDataset
    from vreid_ext.data.names import is_folder_name
    from vreid_ext.data.pose.joints import attach_joints, written_tracklets
    from vreid_ext.data.readers.attributes import read_attributes
    from vreid_ext.data.readers.matlab import MAX_BYTES, load_matrix
    from vreid_ext.data.readers.two_cameras import _read_splits
    from vreid_ext.data.records import DatasetError
    from vreid_ext.data.video.boxes import read_boxes
    from vreid_ext.engine.config import load_recipe, recipe_from_dict
    from vreid_ext.features.stored import damage_of, read_manifest

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def matrix(path: Path) -> None:
    values = load_matrix(path, "a")
    assert isinstance(values, np.ndarray)
    assert values.dtype.kind in "iuf"
    assert values.nbytes <= MAX_BYTES


def attributes(path: Path) -> None:
    sizes = attribute_sizes("mars")
    for key, values in read_attributes(path, "mars").items():
        assert len(key) == 3
        assert all(0 <= values[name] < size for name, size in sizes.items())


def joints(path: Path) -> None:
    data = TrackletDataset("own", str(FOLDER), [Tracklet(("1.jpg", "2.jpg"), 0, 0, "a")], [], [], "")
    read = attach_joints(data, path).train[0].joints
    assert read is not None
    assert read.shape == (2, 14, 3)
    assert read.isfinite().all()


def joints_lines(path: Path) -> None:
    joints(path)
    assert "a" in written_tracklets(path)


def boxes(path: Path) -> None:
    tracks = read_boxes(path, sha256="0", size=(64, 48))
    assert len({track.id for track in tracks}) == len(tracks)
    for track in tracks:
        assert len(track.frames) == len(track.boxes) > 0
        assert all(w > 0 and h > 0 and x < 64 and y < 48 for x, y, w, h in track.boxes)
        assert track.person is None or not (FOLDER / track.person).exists()  # a name that can be asked for


def splits(path: Path) -> None:
    for split in _read_splits(path):
        assert all(is_folder_name(name) for part in split.values() for name in part)


def manifest(path: Path) -> None:
    assert isinstance(read_manifest(path.parent), dict)


def shard(path: Path) -> None:
    assert damage_of(path, "0") is not None  # nobody guesses a checksum


def recipe(path: Path) -> None:
    read = load_recipe(path)
    assert recipe_from_dict(json.loads(json.dumps(read.to_dict()))) == read
    saved = path.with_name("saved.yaml")
    read.save(saved)
    assert load_recipe(saved) == read


# The parser, the file's name, and what it may raise.
PARSERS: dict[str, tuple[Callable[[Path], None], str, type[Exception]]] = {
    "matrix": (matrix, "a.mat", DatasetError),
    "attributes": (attributes, "a.csv", DatasetError),
    "joints": (joints, "joints.json", DatasetError),
    "joints_lines": (joints_lines, "joints.jsonl", DatasetError),
    "boxes": (boxes, "boxes.json", ValueError),
    "splits": (splits, "splits.json", DatasetError),
    "manifest": (manifest, "manifest.json", ValueError),
    "recipe": (recipe, "recipe.yaml", ValueError),
    "shard": (shard, "rows.safetensors", ValueError),
}


ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    1e999,
    float("nan"),
    "",
    "a",
    "../a",
    "..",
    "\0",
    "\ud800",
    [],
    [[]],
    {},
    {"a": 1},
]


def damaged(value: Any, draw: random.Random) -> Any:
    """The value with something else in one place, however deep."""
    if not isinstance(value, list | dict) or not value or draw.random() < 0.2:
        return draw.choice(ODD)
    place = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if draw.random() < 0.2:
        del value[place]
    elif isinstance(value, list) and draw.random() < 0.2:
        value.insert(place, value[draw.randrange(len(value))])
    else:
        value[place] = damaged(value[place], draw)
    return value


def mutate(content: bytes, size: int, seed: int) -> bytes:
    """Another document, where there is one: few changed bytes leave JSON what it is."""
    draw = random.Random(seed)
    lines = content.split(b"\n")
    number = draw.randrange(len(lines))
    try:
        lines[number] = json.dumps(damaged(json.loads(lines[number]), draw)).encode()
    except (ValueError, RecursionError):
        return atheris.Mutate(content, size)
    return b"\n".join(lines)[:size] if draw.random() < 0.8 else atheris.Mutate(content, size)


def main() -> None:
    parser, name, expected = PARSERS[sys.argv.pop(1)]
    path = FOLDER / name

    def one_input(content: bytes) -> None:
        path.write_bytes(content)
        with contextlib.suppress(expected):
            parser(path)

    atheris.Setup(sys.argv, one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
