"""Write tracklets in the layouts of iLIDS-VID and PRID2011: PNG crops of two cameras and the split file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vreid_ext.data.readers.two_cameras import draw_splits
from vreid_ext.data.synth.scene import Shot
from vreid_ext.data.synth.writer import save_mat

Layout = Literal["ilids", "prid"]


def pair_folder(root: Path, layout: Layout, person: int, camera: int) -> Path:
    """The folder of a person (counted from 1) in camera 1 or 2."""
    if layout == "ilids":
        return root / "i-LIDS-VID" / "sequences" / f"cam{camera}" / f"person{person:03d}"
    return root / "prid_2011" / "multi_shot" / f"cam_{'ab'[camera - 1]}" / f"person_{person:04d}"


def write_tracklet(folder: Path, layout: Layout, shot: Shot) -> None:
    """Render and save one tracklet."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(shot.film(), start=1):
        prefix = f"{folder.parent.name}_{folder.name}_" if layout == "ilids" else ""
        frame.image.save(folder / f"{prefix}{number:05d}.png")


def write_splits(root: Path, layout: Layout, people: Sequence[int], seed: int) -> None:
    """Write the split file, under its published name, for the people who appear in both cameras."""
    names = [pair_folder(root, layout, person, 1).name for person in people]
    splits = draw_splits(names, seed)
    if layout == "prid":
        (root / "splits_prid2011.json").write_text(json.dumps(splits) + "\n", encoding="utf-8")
        return
    index = {name: number for number, name in enumerate(sorted(names), start=1)}
    rows = [[index[name] for name in split["test"] + split["train"]] for split in splits]
    folder = root / "train-test people splits"
    folder.mkdir()
    save_mat(folder / "train_test_splits_ilidsvid.mat", "ls_set", np.array(rows, np.uint16))
