"""Body joints of tracklets: 14 points per frame, read from a joints file in the data set's folder.

    ROOT/joints.json     {"joints": 14 names, "tracklets": {name: frames x 14 x [x, y, confidence]}}
    ROOT/joints.jsonl    first line {"joints": 14 names}, then one line {"tracklet": name, "frames": ...} per
                         tracklet, so that tracklets can be appended

x and y are in pixels from the upper left corner of the image that `read_image` returns. The confidence is in
[0, 1]; 0 means that the joint is occluded, outside the image or not found.
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

JOINTS = (
    "head", "neck",
    "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist",
    "left_hip", "left_knee", "left_ankle",
    "right_hip", "right_knee", "right_ankle",
)  # fmt: skip
"""J1 to J14 of STAL (Chen et al., TIP 2019, Fig. 3). Left and right as seen by the person."""

FILES = ("joints.json", "joints.jsonl")

# For each joint, the index of its mirror image (left <-> right).
_MIRRORED = [
    JOINTS.index(name.replace("left", "#").replace("right", "left").replace("#", "right")) for name in JOINTS
]


def mirror_joints(joints: Tensor) -> Tensor:
    """Flip joints (...,14,3) horizontally: x (a fraction of the width) becomes 1 - x, left and right swap."""
    mirrored = joints[..., _MIRRORED, :]
    mirrored[..., 0] = 1 - mirrored[..., 0]
    return mirrored


def attach_joints(dataset: TrackletDataset, path: str | os.PathLike[str] | None = None) -> TrackletDataset:
    """Return a copy of the data set with `Tracklet.joints` read from a joints file.

    Args:
        dataset: data set without joints.
        path: joints file; None: `joints.json` or `joints.jsonl` in the data set's folder. If neither exists,
            this function issues a warning and returns the data set unchanged. Models then use fixed part
            positions of a standing person.

    Raises:
        DatasetError: the file is missing or unreadable, has other joints, belongs to another data set, lacks
            tracklets, or has the wrong number of frames for a tracklet. The message names the file and the
            tracklet.
    """
    if path is None:
        path = next((f for name in FILES if (f := Path(dataset.root, name)).is_file()), None)
        if path is None:
            warnings.warn(
                f"{dataset.root}: no {' or '.join(FILES)}; using the fixed part positions of a standing "
                "person (run `vreid joints` to estimate joints)",
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
    """Append (tracklet name, joints (n,14,3)) pairs to a `.jsonl` file. Yields each name after writing it."""
    with open(path, "a", encoding="utf-8") as file:
        if not file.tell():
            file.write(json.dumps({"joints": JOINTS}) + "\n")
        for name, joints in tracklets:
            frames = [[[round(float(v), 2) for v in joint] for joint in frame] for frame in joints]
            file.write(json.dumps({"tracklet": name, "frames": frames}, separators=(",", ":")) + "\n")
            file.flush()
            yield name


def written_tracklets(path: Path) -> set[str]:
    """Names of the tracklets in a `.jsonl` file, so that `write_joints` can append the others.

    An incomplete last line, left by an interrupted write, is removed from the file.
    """
    if not path.is_file():
        return set()
    text = path.read_bytes()
    complete = text[: text.rfind(b"\n") + 1]
    if len(complete) < len(text):
        with whole_file(path) as temporary:
            temporary.write_bytes(complete)
    return {name for name, _ in _Reader(path).lines()}


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, tracklets: Mapping[str, Tracklet]) -> dict[str, Tensor]:
        """Joints (n,14,3) of every tracklet, by name."""
        # Other operating systems may have written the names in another Unicode normalization.
        normalized = {nfc(name): name for name in tracklets}
        joints = {}
        for key, value in self._entries():
            name = key if key in tracklets else normalized.get(nfc(key))
            if name is not None:
                joints[name] = self._checked(name, value, len(tracklets[name]))
        missing = [name for name in tracklets if name not in joints]
        if missing:
            other = "" if joints else "; the file belongs to another data set"
            raise DatasetError(
                f"{self.path}: expected joints of all {len(tracklets)} tracklets, got none for "
                f"{len(missing)} of them, such as {', '.join(missing[:3])}{other}"
            )
        return joints

    def lines(self) -> Iterator[tuple[str, Any]]:
        """Yield (tracklet name, joints of its frames) from a `.jsonl` file, unchecked."""
        with self._open() as file:
            self._check_skeleton(self._json(file.readline(), "line 1"))
            for number, line in enumerate(file, start=2):
                entry = self._json(line, f"line {number}")
                if not isinstance(entry, dict) or not {"tracklet", "frames"} <= entry.keys():
                    raise DatasetError(f"{self.path}, line {number}: expected 'tracklet' and 'frames'")
                if not isinstance(entry["tracklet"], str):
                    raise DatasetError(
                        f"{self.path}, line {number}: tracklet: expected a string, "
                        f"got {entry['tracklet']!r:.60}"
                    )
                yield entry["tracklet"], entry["frames"]

    def _entries(self) -> Iterable[tuple[str, Any]]:
        if self.path.suffix == ".jsonl":
            return self.lines()
        with self._open() as file:
            content = self._json(file.read(), "the file")
        self._check_skeleton(content)
        if not isinstance(content.get("tracklets"), dict):
            raise DatasetError(f"{self.path}: expected 'tracklets', a mapping from tracklet names to joints")
        entries: dict[str, Any] = content["tracklets"]
        return entries.items()

    def _open(self) -> Any:
        try:
            # With invalid UTF-8 replaced, the JSON parser or the name lookup reports the damage.
            return open(self.path, encoding="utf-8", errors="replace")
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be read ({error.strerror})") from error

    def _json(self, text: str, place: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{self.path}: {place}: expected JSON, got an error: {error}") from error

    def _check_skeleton(self, content: Any) -> None:
        names = content.get("joints") if isinstance(content, dict) else None
        if names != list(JOINTS):
            raise DatasetError(f"{self.path}: joints: expected {list(JOINTS)}, got {names!r:.300}")

    def _checked(self, name: str, value: Any, frames: int) -> Tensor:
        try:
            with np.errstate(over="ignore"):  # overflow gives inf, which is rejected below
                joints = torch.from_numpy(np.asarray(value, np.float32))
        except (TypeError, ValueError, OverflowError):
            shape: Any = "rows of different lengths or values that are not numbers"
        else:
            shape = tuple(joints.shape)
            if shape == (frames, len(JOINTS), 3):
                if joints.isfinite().all():
                    return joints
                raise DatasetError(
                    f"{self.path}: tracklet {name}: expected finite joints, got NaN or infinity"
                )
        raise DatasetError(
            f"{self.path}: tracklet {name}: expected joints of shape {(frames, len(JOINTS), 3)} "
            f"(frames, joints, [x, y, confidence]), got {shape}"
        )
