"""Write tracklets in the layout of MARS: JPEG crops, `info/*.mat`, attribute table, joints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import savemat

from vreid_ext.data.pose.joints import JOINTS
from vreid_ext.data.synth.scene import Shot

ID_COLUMNS = ("person_id", "camera_id", "tracklets_id")
CONDITION_COLUMNS = (
    "motion", "pose", "occlusion", "cut-out", "multi-person", "background-dominant",
    "target-change", "target-miss", "wrong-target",
)  # fmt: skip
PERSON_COLUMNS = (
    "top color", "bottom color", "age", "top length", "bottom length", "shoulder bag", "backpack", "hat",
    "hand bag", "hair", "gender", "bottom type",
)  # fmt: skip
_MAT_TEXT = 116  # length in bytes of the text header of a MAT-file, where SciPy writes the current time


@dataclass(frozen=True)
class Entry:
    """A tracklet to be written: `pid` is -1 for junk, 0 for distractors; `camid` and `track` start at 1."""

    pid: int
    camid: int
    track: int

    @property
    def name(self) -> str:
        """`0001C1T0001`, or `00-1C1T0001` for junk, as in MARS."""
        return f"{self.folder}C{self.camid}T{self.track:04d}"

    @property
    def folder(self) -> str:
        return f"{self.pid:04d}" if self.pid >= 0 else "00-1"


class MarsWriter:
    """Writes the images of one split and collects its metadata, in the order in which tracklets are added."""

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split = root, split
        self.images: list[str] = []
        self.tracks: list[tuple[int, int, int, int]] = []
        self.entries: list[Entry] = []
        self.rows: list[list[int]] = []
        self.joints: dict[str, list[list[list[float]]]] = {}

    def add(self, entry: Entry, shot: Shot, attributes: Mapping[str, int] | None) -> None:
        """Render and save one tracklet. `attributes` is None for junk and distractors, as in MARS."""
        folder = self.root / f"bbox_{self.split}" / entry.folder
        folder.mkdir(parents=True, exist_ok=True)
        first = len(self.images) + 1
        joints = []
        for number, frame in enumerate(shot.film(), start=1):
            name = f"{entry.name}F{number:03d}.jpg"
            frame.image.save(folder / name, quality=shot.camera.quality)
            self.images.append(name)
            joints.append([[x, y, int(v)] for x, y, v in frame.joints.tolist()])
        self.tracks.append((first, len(self.images), entry.pid, entry.camid))
        self.entries.append(entry)
        if attributes is not None:
            values = {**shot.conditions(), **attributes}
            self.rows.append(
                [
                    entry.pid,
                    entry.camid,
                    entry.track,
                    *(values[c] for c in CONDITION_COLUMNS + PERSON_COLUMNS),
                ]
            )
        if entry.pid >= 0:
            self.joints[entry.name] = joints

    def queries(self) -> np.ndarray:
        """1-based indices (1, N) of the queries: the first tracklet of every test person in every camera."""
        seen: set[tuple[int, int]] = set()
        rows = []
        for row, entry in enumerate(self.entries, start=1):
            if entry.pid > 0 and (entry.pid, entry.camid) not in seen:
                seen.add((entry.pid, entry.camid))
                rows.append(row)
        return np.array([rows], np.uint16)


def write_info(root: Path, train: MarsWriter, test: MarsWriter) -> None:
    """Write the metadata files of a finished set, under the names that MARS uses."""
    info = root / "info"
    info.mkdir()
    for writer in (train, test):
        (info / f"{writer.split}_name.txt").write_text("\n".join(writer.images) + "\n")
        key = f"track_{writer.split}_info"
        save_mat(info / f"tracks_{writer.split}_info.mat", key, np.array(writer.tracks, np.int32))
    save_mat(info / "query_IDX.mat", "query_IDX", test.queries())
    with open(root / "mars_attributes.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(ID_COLUMNS + CONDITION_COLUMNS + PERSON_COLUMNS)
        table.writerows(train.rows + test.rows)
    joints = {"joints": JOINTS, "tracklets": {**train.joints, **test.joints}}
    (root / "joints.json").write_text(json.dumps(joints, separators=(",", ":")))


def save_mat(path: Path, key: str, value: np.ndarray) -> None:
    """Write a MATLAB file with one matrix. SciPy writes the time into the text header; replace the header."""
    buffer = io.BytesIO()
    savemat(buffer, {key: value})
    content = bytearray(buffer.getvalue())
    content[:_MAT_TEXT] = b"MATLAB 5.0 MAT-file, vreid_ext synthetic set".ljust(_MAT_TEXT)
    path.write_bytes(content)
