"""MOT text: the tracks of one video in the format of the MOTChallenge.

One line per box, in any order, with six to ten fields:

    frame,id,x,y,w,h,confidence,class,visibility          ground truth of MOT16 and later
    frame,id,x,y,w,h,confidence,X,Y,Z                      MOT15, and the output of trackers

Frames are numbered from 1. (x, y) is the upper left corner in pixels; it is used as it is, although the
ground truth of the MOTChallenge counts pixels from 1. Fields after h are optional.

Source: Milan et al., "MOT16: A Benchmark for Multi-Object Tracking" (arXiv:1603.00831), section 3.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from vreid_ext.data.video.boxes import Box, Track, check_box

_GROUND_TRUTH = 9  # number of fields of a ground truth with classes
_PEDESTRIAN = 1


class MotText(NamedTuple):
    """Content of a file with MOT text.

    Attributes:
        tracks: the tracks in ascending order of their id, with frames counted from 0.
        left_out: number of lines with confidence 0 or, in a ground truth with classes, of another class than
            pedestrian. The MOTChallenge does not evaluate them.
    """

    tracks: list[Track]
    left_out: int


def read_mot(path: str | Path, *, size: tuple[int, int] | None = None) -> MotText:
    """Read tracks from MOT text.

    Args:
        path: the file.
        size: (width, height) of the video; each box must overlap the frame.

    Raises:
        ValueError: the file cannot be read or contains no track; or a line has another format, is a detection
            without track (id -1), has a box outside the frame or repeats the frame and id of another. The
            message has the number of the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"boxes: expected MOT text, got {path}, which cannot be read: {error}") from error
    found: dict[int, dict[int, Box]] = {}
    left_out = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"boxes: {path}, line {number}"
        fields = _numbers(line, where)
        frame, track = _integer(fields[0], f"{where}: frame", 1), _integer(fields[1], f"{where}: id", 0)
        x, y, w, h = fields[2:6]
        ignored = len(fields) > 6 and fields[6] == 0
        if ignored or (len(fields) == _GROUND_TRUTH and fields[7] != _PEDESTRIAN):
            left_out += 1
            continue
        check_box(f"{where}: box", (x, y, w, h), size)
        if frame - 1 in found.setdefault(track, {}):
            raise ValueError(f"{where}: expected one box per frame and id, got a second one")
        found[track][frame - 1] = (x, y, w, h)
    if not found:
        raise ValueError(f"boxes: expected at least one track, got none in {path}")
    tracks = []
    for track, boxes in sorted(found.items()):
        frames = sorted(boxes)
        tracks.append(Track(track, tuple(frames), tuple(boxes[frame] for frame in frames)))
    return MotText(tracks, left_out)


def write_mot(path: Path, tracks: Iterable[Track]) -> None:
    """Write tracks as MOT text with ten fields, in order of frame and id, such that `read_mot` inverts it."""
    rows = sorted((f + 1, t.id, box) for t in tracks for f, box in zip(t.frames, t.boxes, strict=True))
    lines = [
        ",".join([str(frame), str(track), *(repr(float(v)).removesuffix(".0") for v in box), "1,-1,-1,-1"])
        for frame, track, box in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _numbers(line: str, where: str) -> list[float]:
    parts = line.split(",")
    try:
        fields = [float(part) for part in parts]
    except ValueError:
        fields = []
    if not 6 <= len(fields) <= 10 or not all(map(math.isfinite, fields)):
        raise ValueError(f"{where}: expected 6 to 10 numbers frame,id,x,y,w,h,..., got {line.strip()!r:.60}")
    return fields


def _integer(value: float, where: str, least: int) -> int:
    if value != int(value) or not least <= value < 2**53:
        hint = "; a detection without track" if where.endswith("id") and value == -1 else ""
        raise ValueError(f"{where}: expected an integer >= {least}, got {value:g}{hint}")
    return int(value)
