"""Body joints of tracklets: 14 points in every frame, from a file beside the data set.

    ROOT/joints.json     {"joints": 14 names, "tracklets": {name: frames x 14 x [x, y, confidence]}}
    ROOT/joints.jsonl    a first line {"joints": 14 names}, then a line {"tracklet": name, "frames": ...} each

x and y are pixels of the image as `read_image` gives it, from its upper left corner; confidence is in [0, 1],
0 for a joint that is covered, outside or not found. The second form can be written tracklet by tracklet.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vreid_ext._files import whole_file
from vreid_ext.data.names import nfc
from vreid_ext.data.records import DatasetError, Tracklet, TrackletDataset

# J1 to J14 of STAL (Chen et al., TIP 2019, Fig. 3). Left and right are the person's.
JOINTS = (
    "head", "neck",
    "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist",
    "left_hip", "left_knee", "left_ankle",
    "right_hip", "right_knee", "right_ankle",
)  # fmt: skip
FILES = ("joints.json", "joints.jsonl")

# The joint that each becomes in a mirror image.
_MIRRORED = [
    JOINTS.index(name.replace("left", "#").replace("right", "left").replace("#", "right")) for name in JOINTS
]


def mirror_joints(joints: Tensor) -> Tensor:
    """Joints of the mirror image: (...,14,3) with x as a share of the width; left and right change places."""
    mirrored = joints[..., _MIRRORED, :]
    mirrored[..., 0] = 1 - mirrored[..., 0]
    return mirrored


def attach_joints(dataset: TrackletDataset, path: str | os.PathLike[str] | None = None) -> TrackletDataset:
    """The data set with `Tracklet.joints` read from a joints file.

    Args:
        dataset: as a loader gives it.
        path: the file; None: `joints.json` or `joints.jsonl` in the data set's folder. Where there is none,
            a warning says so and the data set is returned as it is: models then use a layout of standing
            proportions.

    Raises:
        DatasetError: naming the file: missing, unreadable, of another skeleton or another data set; and the
            tracklets that it lacks or gives another number of frames.
    """
    if path is None:
        path = next((f for name in FILES if (f := Path(dataset.root, name)).is_file()), None)
        if path is None:
            warnings.warn(
                f"{dataset.root}: no {' or '.join(FILES)}; body parts are taken from a layout of standing "
                "proportions (`vreid joints` estimates them)",
                stacklevel=2,
            )
            return dataset
    joints = _Reader(Path(path)).read(dataset.by_name())

    def with_joints(tracklets: list[Tracklet]) -> list[Tracklet]:
        return [dataclasses.replace(tracklet, joints=joints[tracklet.name]) for tracklet in tracklets]

    return dataclasses.replace(
        dataset,
        train=with_joints(dataset.train),
        query=with_joints(dataset.query),
        gallery=with_joints(dataset.gallery),
    )


def write_joints(path: Path, tracklets: Iterable[tuple[str, np.ndarray]]) -> Iterator[str]:
    """Append joints (n,14,3) by tracklet name to a `.jsonl` file, yielding each name once it is on disk."""
    with open(path, "a", encoding="utf-8") as file:
        if not file.tell():
            file.write(json.dumps({"joints": JOINTS}) + "\n")
        for name, joints in tracklets:
            frames = [[[round(float(v), 2) for v in joint] for joint in frame] for frame in joints]
            file.write(json.dumps({"tracklet": name, "frames": frames}, separators=(",", ":")) + "\n")
            file.flush()
            yield name


def written_tracklets(path: Path) -> set[str]:
    """Names in a `.jsonl` file that `write_joints` may go on with; a line cut off by a kill is removed."""
    if not path.is_file():
        return set()
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with whole_file(path) as temporary:
            temporary.write_bytes(whole)
    return {name for name, _ in _Reader(path).lines()}


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, wanted: Mapping[str, Tracklet]) -> dict[str, Tensor]:
        """Joints (n,14,3) of every tracklet, by name."""
        composed = {nfc(name): name for name in wanted}  # where the file was written on another system
        joints = {}
        for given, value in self._entries():
            name = given if given in wanted else composed.get(nfc(given))
            if name is not None:
                joints[name] = self._checked(name, value, len(wanted[name]))
        missing = [name for name in wanted if name not in joints]
        if missing:
            what = "is of another data set: it has none" if not joints else f"lacks {len(missing)}"
            raise DatasetError(
                f"{self.path}: {what} of the {len(wanted)} tracklets, such as {', '.join(missing[:3])}"
            )
        return joints

    def lines(self) -> Iterator[tuple[str, Any]]:
        """Names and frames of a `.jsonl` file."""
        with self._open() as file:
            self._check_skeleton(self._json(file.readline(), "line 1"))
            for number, line in enumerate(file, start=2):
                entry = self._json(line, f"line {number}")
                if not isinstance(entry, dict) or not {"tracklet", "frames"} <= entry.keys():
                    raise DatasetError(f"{self.path}, line {number}: expected 'tracklet' and 'frames'")
                if not isinstance(entry["tracklet"], str):
                    raise DatasetError(f"{self.path}, line {number}: expected a tracklet's name as text")
                yield entry["tracklet"], entry["frames"]

    def _entries(self) -> Iterable[tuple[str, Any]]:
        if self.path.suffix == ".jsonl":
            return self.lines()
        with self._open() as file:
            content = self._json(file.read(), "the file")
        self._check_skeleton(content)
        if not isinstance(content.get("tracklets"), dict):
            raise DatasetError(f"{self.path}: expected 'tracklets', the joints by the tracklet's name")
        entries: dict[str, Any] = content["tracklets"]
        return entries.items()

    def _open(self) -> Any:
        try:
            return open(self.path, encoding="utf-8", errors="replace")  # other bytes are then no JSON
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be read ({error.strerror})") from error

    def _json(self, text: str, place: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{self.path}: {place} is no JSON ({error})") from error

    def _check_skeleton(self, content: Any) -> None:
        names = content.get("joints") if isinstance(content, dict) else None
        if names != list(JOINTS):
            raise DatasetError(f"{self.path}: expected {list(JOINTS)}, got joints {names!r:.300}")

    def _checked(self, name: str, value: Any, frames: int) -> Tensor:
        try:
            with np.errstate(over="ignore"):  # becomes infinite
                joints = torch.from_numpy(np.asarray(value, np.float32))
        except (TypeError, ValueError, OverflowError):
            shape: Any = "rows of unequal length or no numbers"
        else:
            shape = tuple(joints.shape)
            if shape == (frames, len(JOINTS), 3):
                if joints.isfinite().all():
                    return joints
                raise DatasetError(
                    f"{self.path}: tracklet {name}: expected joints of finite numbers, got NaN or infinity"
                )
        raise DatasetError(
            f"{self.path}: tracklet {name}: expected joints of shape {(frames, len(JOINTS), 3)} "
            f"(frames, joints, x with y and confidence), got {shape}"
        )
