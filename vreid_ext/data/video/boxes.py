"""Boxes files: the people of one video as tracks of boxes, with or without names."""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vreid_ext.data.names import is_folder_name, nfc

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Track:
    """One person followed through a video.

    boxes[i] = (x, y, w, h) in pixels on frame frames[i], counted from 0; person: a name, None if unknown.
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
    """Reads a boxes file: JSON with the tracks of one video.

        {"video": name, "sha256": hex digest of the video file, "fps": 10, "size": [width, height],
         "tracklets": [{"id": 0, "person": "A", "frames": [0, 2], "boxes": [[x, y, w, h], [x, y, w, h]]}]}

    Frames count from 0 and rise; `person` may be null; only `tracklets` is required.

    Args:
        path: the file.
        sha256: of the video the boxes must belong to; a file that names none is taken at its word.
        size: (width, height) of the video; every box must overlap the picture.

    Raises:
        ValueError: the file is not of that form, belongs to another video, or has a box outside the picture.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"boxes: {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("tracklets"), list):
        raise ValueError(
            f"boxes: expected a file as `vreid tracklets` writes it, got {path} without a list 'tracklets'"
        )
    if sha256 is not None and content.get("sha256", sha256) != sha256:
        raise ValueError(f"boxes: {path} is for another video ({content.get('video')}): its sha256 differs")
    if size is not None and content.get("size", list(size)) != list(size):
        raise ValueError(
            f"boxes: {path} is for pictures of {content['size']} pixels, the video has {list(size)}"
        )
    tracks = [
        _track(entry, f"boxes: {path}, tracklet {i}", size) for i, entry in enumerate(content["tracklets"])
    ]
    if len({t.id for t in tracks}) < len(tracks):
        raise ValueError(f"boxes: {path} has two tracklets with the same id")
    return tracks


def write_boxes(
    path: Path, tracks: list[Track], *, video: str, sha256: str, fps: float, size: tuple[int, int]
) -> None:
    """Writes a boxes file that `read_boxes` reads back as the same tracks."""
    content = {
        "video": video,
        "sha256": sha256,
        "fps": fps,
        "size": list(size),
        "tracklets": [{"id": t.id, "person": t.person, "frames": t.frames, "boxes": t.boxes} for t in tracks],
    }
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _track(entry: object, where: str, size: tuple[int, int] | None) -> Track:
    if not isinstance(entry, Mapping) or not {"id", "frames", "boxes"} <= entry.keys():
        raise ValueError(f"{where}: expected id, person, frames and boxes")
    number, person, frames, boxes = entry["id"], entry.get("person"), entry["frames"], entry["boxes"]
    if type(number) is not int or number < 0:
        raise ValueError(f"{where}: id: expected a whole number from 0, got {number!r}")
    if person is not None and not is_folder_name(person):
        raise ValueError(f"{where}: person: expected a name that can be a folder's, or null, got {person!r}")
    if not isinstance(frames, list) or any(type(f) is not int or f < 0 for f in frames):
        raise ValueError(f"{where}: frames: expected a list of frame numbers from 0, got {frames!r:.60}")
    if not frames or any(b <= a for a, b in itertools.pairwise(frames)):
        raise ValueError(f"{where}: frames must be at least one, and rise")
    if not isinstance(boxes, list) or len(boxes) != len(frames):
        raise ValueError(f"{where}: expected one box for each of its {len(frames)} frames")
    for box in boxes:
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
            raise ValueError(f"{where}: box: expected [x, y, w, h] in pixels, got {box!r:.60}")
        x, y, w, h = box
        if w <= 0 or h <= 0:
            raise ValueError(f"{where}: box {box} is empty")
        if size is not None and (x + w <= 0 or y + h <= 0 or x >= size[0] or y >= size[1]):
            raise ValueError(f"{where}: box {box} lies outside the picture of {size[0]} x {size[1]} pixels")
    as_floats = tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in boxes)
    return Track(number, tuple(frames), as_floats, person if person is None else nfc(person))


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of more than 308 digits
        return False
