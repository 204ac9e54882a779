"""Boxes files: tracks of bounding boxes of the people in one video, with or without names."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vreid_ext.data.names import is_folder_name, nfc

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Track:
    """The bounding boxes of one person in a video.

    Attributes:
        id: unique number of the track.
        frames: frame numbers from 0, ascending.
        boxes: (x, y, w, h) in pixels, for each of `frames`.
        person: name of the person, None if unknown.
    """

    id: int
    frames: tuple[int, ...]
    boxes: tuple[Box, ...]
    person: str | None = None

    def __repr__(self) -> str:
        who = "an unknown person" if self.person is None else repr(self.person)
        where = f" on frames {self.frames[0]} to {self.frames[-1]}" if self.frames else ""
        return f"Track({self.id}, {who}, {len(self.frames)} boxes{where})"


def read_boxes(
    path: str | Path, *, sha256: str | None = None, size: tuple[int, int] | None = None
) -> list[Track]:
    """Read a boxes file: JSON with the tracks of one video.

        {"video": name, "sha256": hex digest of the video file, "fps": 10, "size": [width, height],
         "tracklets": [{"id": 0, "person": "A", "frames": [0, 2], "boxes": [[x, y, w, h], [x, y, w, h]]}]}

    Frames are numbered from 0 and ascending; `person` may be null; only `tracklets` is required.

    Args:
        path: the file.
        sha256: digest of the video, compared with the digest in the file if there is one.
        size: (width, height) of the video; each box must overlap the frame.

    Raises:
        ValueError: the file has another format, belongs to another video, or has a box outside the frame.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"boxes: expected a JSON file, got {path}, which cannot be read: {error}") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("tracklets"), list):
        raise ValueError(
            f"boxes: expected the format of `vreid tracklets`, got {path} without a list 'tracklets'"
        )
    if sha256 is not None and content.get("sha256", sha256) != sha256:
        raise ValueError(
            f"boxes: expected boxes of the video with sha256 {sha256}, got {path} of another video "
            f"({content.get('video')})"
        )
    if size is not None and content.get("size", list(size)) != list(size):
        raise ValueError(
            f"boxes: expected boxes of a video with size {list(size)}, got {path} with size {content['size']}"
        )
    tracks = [
        _track(entry, f"boxes: {path}, tracklet {i}", size) for i, entry in enumerate(content["tracklets"])
    ]
    if len({t.id for t in tracks}) < len(tracks):
        raise ValueError(f"boxes: expected unique ids, got two tracklets with the same id in {path}")
    return tracks


def write_boxes(
    path: Path, tracks: list[Track], *, video: str, sha256: str, fps: float, size: tuple[int, int]
) -> None:
    """Write a boxes file in the format of `read_boxes`."""
    content = {
        "video": video,
        "sha256": sha256,
        "fps": fps,
        "size": list(size),
        "tracklets": [{"id": t.id, "person": t.person, "frames": t.frames, "boxes": t.boxes} for t in tracks],
    }
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def check_box(name: str, box: Sequence[float], size: tuple[int, int] | None) -> None:
    """Check that a box (x, y, w, h) is not empty and overlaps a frame of `size` = (width, height) pixels."""
    x, y, w, h = box
    if w <= 0 or h <= 0:
        raise ValueError(f"{name}: expected positive width and height, got {list(box)}")
    if size is not None and (x + w <= 0 or y + h <= 0 or x >= size[0] or y >= size[1]):
        raise ValueError(
            f"{name}: expected overlap with the frame of {size[0]} x {size[1]} pixels, got {list(box)}"
        )


def crop_box(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The pixels (h,w,3) of a picture that a box (x, y, w, h) touches, as a view. See `check_box`."""
    x, y, w, h = box
    top, left = max(math.floor(y), 0), max(math.floor(x), 0)
    return picture[top : math.ceil(y + h), left : math.ceil(x + w)]


def read_rates(folder: Path) -> dict[str, float]:
    """Frames per second of each camera of a folder that `vreid tracklets` has written, as far as known.

    The files are tracklets-<camera>.json, or tracklets.json, whose rate has the key "".
    """
    rates = {}
    for path in sorted(folder.glob("tracklets*.json")):
        read_boxes(path)
        rate = json.loads(path.read_text(encoding="utf-8")).get("fps")
        if _is_number(rate) and rate > 0:
            rates[path.stem.removeprefix("tracklets").removeprefix("-")] = float(rate)
    return rates


def _track(entry: object, where: str, size: tuple[int, int] | None) -> Track:
    if not isinstance(entry, Mapping) or not {"id", "frames", "boxes"} <= entry.keys():
        raise ValueError(f"{where}: expected id, person, frames and boxes")
    number, person, frames, boxes = entry["id"], entry.get("person"), entry["frames"], entry["boxes"]
    if type(number) is not int or number < 0:
        raise ValueError(f"{where}: id: expected an integer >= 0, got {number!r}")
    if person is not None and not is_folder_name(person):
        raise ValueError(f"{where}: person: expected a valid folder name or null, got {person!r}")
    if not isinstance(frames, list) or any(type(f) is not int or f < 0 for f in frames):
        raise ValueError(f"{where}: frames: expected a list of integers >= 0, got {frames!r:.60}")
    if not frames or any(b <= a for a, b in itertools.pairwise(frames)):
        raise ValueError(f"{where}: frames: expected at least one, in ascending order, got {frames!r:.60}")
    if not isinstance(boxes, list) or len(boxes) != len(frames):
        raise ValueError(f"{where}: boxes: expected one box for each of its {len(frames)} frames")
    for box in boxes:
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
            raise ValueError(f"{where}: box: expected [x, y, w, h] in pixels, got {box!r:.60}")
        check_box(f"{where}: box", box, size)
    as_floats = tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in boxes)
    return Track(number, tuple(frames), as_floats, person if person is None else nfc(person))


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False
