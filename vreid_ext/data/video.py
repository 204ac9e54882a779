"""Tracklets out of a video: detect people, link them, cut them out into a `TrackletFolder`.

OpenCV's people detector (Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005) finds
upright people; boxes of successive frames are linked by overlap. Neither is a state-of-the-art tracker: they are what
runs anywhere without weights, good enough to turn footage into tracklets that a person then labels. Boxes from a better
tracker, or boxes labelled by hand, come in through a boxes file (`read_boxes`).
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Progress = Callable[[int, int], None]

# The detector's window is 64 x 128 pixels around a person some 100 pixels high; enlarging the picture finds smaller people.
_ENLARGE = 1.5
# Of the window the person fills about this much (width, height): the rest is the margin the detector was trained with.
_PERSON = (0.52, 0.73)


@dataclass(frozen=True)
class Track:
    """One person followed through a video: box `boxes[i]` = (x, y, w, h) in pixels on frame `frames[i]` (from 0)."""

    id: int
    frames: tuple[int, ...]
    boxes: tuple[Box, ...]
    person: str | None = None


@dataclass(frozen=True)
class Extraction:
    """What `extract_tracklets` wrote: the folder, the tracks in it, the crops, and the tracks left out as too short."""

    root: Path
    tracks: tuple[Track, ...]
    crops: int
    too_short: int
    train: int

    def summary(self) -> str:
        """One paragraph for a terminal."""
        persons = {t.person for t in self.tracks}
        if persons == {None}:
            who = "identities unknown: each tracklet is a person folder of its own"
        else:
            who = f"{len(persons)} persons"
        split = f", {self.train} train and {len(self.tracks) - self.train} test" if self.train else ""
        return (
            f"{len(self.tracks)} tracklets{split} ({who}), {self.crops} crops in {self.root}; "
            f"{self.too_short} shorter tracks left out"
        )


def extract_tracklets(
    video: str | Path,
    out: str | Path,
    *,
    boxes: str | Path | None = None,
    start: int | None = None,
    stop: int | None = None,
    split: int | None = None,
    stride: int = 2,
    min_frames: int = 4,
    camera: str = "cam1",
    progress: Progress | None = None,
) -> Extraction:
    """Detects, links and crops the people of a video into `out`, in the layout that `TrackletFolder` reads.

    Writes `out/<person>/<camera>/<tracklet>/<frame>.jpg` and `out/tracklets.json`, the boxes in the form that `boxes`
    takes: fill in its `person` fields by hand, run again with it, and the tracklets are sorted by person. Without a boxes
    file identities are unknown and each tracklet is a person of its own. With `split`, tracklets that end before that
    frame go to `out/train`, every other one to both `out/query` and `out/gallery`.

    Same video and options, same files. The folder appears under its name only when it is complete.

    Args:
        video: any file OpenCV decodes.
        out: a folder that does not exist yet, or an empty one.
        boxes: a boxes file (`read_boxes`) to cut out instead of detecting.
        start, stop: frames `start <= f < stop` are used (the whole video).
        split: frame number that parts training from test tracklets.
        stride: look for people on every `stride`-th frame. A boxes file names its own frames.
        min_frames: tracks with fewer boxes are left out and counted.
        camera: name of the camera folder.
        progress: called with (frames done, frames to do).

    Raises:
        ValueError: an argument out of range, a video that does not decode or has nobody in it, a boxes file that is
            malformed or belongs to another video, a box outside the picture.
        FileExistsError: `out` holds something already.
        ImportError: OpenCV, or its people detector, is missing.
    """
    video, out = Path(video), Path(out)
    first, last = start or 0, math.inf if stop is None else stop
    if first < 0 or last <= first:
        raise ValueError(f"start, stop: got {start}, {stop}; want 0 <= start < stop")
    for name, value in (("stride", stride), ("min_frames", min_frames)):
        if value < 1:
            raise ValueError(f"{name}: got {value}; want at least 1")
    if not camera or Path(camera).name != camera:
        raise ValueError(f"camera: got {camera!r}; want the name of a folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"out: {out} already holds results; name a new folder, or remove it first")
    cv2 = _opencv()
    width, height, fps, length = _probe(cv2, video)
    last = min(last, length)
    digest = _sha256(video)

    if boxes is None:
        found = link_boxes(_detect(cv2, video, first, int(last), stride, progress))
        what = f"nobody was found in {video}"
    else:
        found = read_boxes(boxes, sha256=digest, size=(width, height))
        beyond = max((t.frames[-1] for t in found), default=0)
        if beyond >= length:
            raise ValueError(f"boxes: {boxes} has a box on frame {beyond}, but {video} ends after {length} frames")
        found = [c for t in found if (c := _cut(t, first, last)).frames]
        what = f"{boxes} has no box in those frames"
    tracks = [t for t in found if len(t.frames) >= min_frames]
    if not tracks:
        raise ValueError(f"video: {what} with at least {min_frames} boxes in a track")
    is_train = [split is not None and t.frames[-1] < split for t in tracks]
    if split is not None and len(set(is_train)) == 1:
        raise ValueError(f"split: {split} leaves {'no test' if is_train[0] else 'no training'} tracklets")

    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        places = {
            t.id: [
                staging / part / (t.person or f"unknown{t.id:04d}") / camera / f"{t.id:04d}"
                for part in ([""] if split is None else ["train"] if train else ["query", "gallery"])
            ]
            for t, train in zip(tracks, is_train, strict=True)
        }
        crops = _write_crops(cv2, video, tracks, places, progress)
        _write_boxes(staging / "tracklets.json", video, digest, fps, (width, height), tracks)
        staging.chmod(0o777 & ~_umask())
        os.replace(staging, out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Extraction(out, tuple(tracks), crops, len(found) - len(tracks), sum(is_train))


def read_boxes(path: str | Path, *, sha256: str | None = None, size: tuple[int, int] | None = None) -> list[Track]:
    """Reads a boxes file: JSON with the tracks of one video.

    `{"video": name, "sha256": hex of the video file, "fps": n, "size": [width, height], "tracklets": [{"id": 0,
    "person": "A" or null, "frames": [0, 2, ...], "boxes": [[x, y, w, h], ...]}, ...]}`; frames count from 0 and rise.

    Args:
        path: the file.
        sha256: of the video the boxes must belong to; a file that names none is taken at its word.
        size: (width, height) of the video; boxes must overlap the picture.

    Raises:
        ValueError: the file is not of that form, belongs to another video, or has a box outside the picture.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"boxes: {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("tracklets"), list):
        raise ValueError(f"boxes: {path} has no list 'tracklets'; want a file as `vreid tracklets` writes it")
    if sha256 is not None and content.get("sha256", sha256) != sha256:
        raise ValueError(f"boxes: {path} belongs to another video ({content.get('video')}): its sha256 differs")
    if size is not None and list(content.get("size", size)) != list(size):
        raise ValueError(f"boxes: {path} is for pictures of size {content['size']}, the video has {list(size)}")
    tracks = [_track(entry, f"boxes: {path}, tracklet {i}", size) for i, entry in enumerate(content["tracklets"])]
    if len({t.id for t in tracks}) < len(tracks):
        raise ValueError(f"boxes: {path} has two tracklets with the same id")
    return tracks


def link_boxes(
    detections: Mapping[int, NDArray[np.float64]], *, min_iou: float = 0.3, max_gap: int = 3
) -> list[Track]:
    """Links boxes of successive frames into tracks, greedily by overlap.

    Frame by frame, the pair (track, box) with the highest intersection over union is joined, then the next, down to
    `min_iou`; a box left over starts a track. A track that `max_gap` frames in a row have not continued is closed.

    Args:
        detections: frame number -> boxes (N, 4), x y w h in pixels; a frame without people maps to an empty array.
        min_iou: least overlap of two boxes of a track.
        max_gap: looked-at frames that may pass without a box.

    Returns:
        Tracks in order of their first box, numbered from 0.
    """
    tracks: list[tuple[list[int], list[Box]]] = []
    last_seen: dict[int, int] = {}  # open track -> position of its last frame
    for position, (frame, found) in enumerate(sorted(detections.items())):
        last_seen = {t: p for t, p in last_seen.items() if position - p <= max_gap + 1}
        open_tracks = list(last_seen)
        overlap = iou(np.array([tracks[t][1][-1] for t in open_tracks]).reshape(-1, 4), found)
        owner: dict[int, int] = {}
        for flat in np.argsort(-overlap, axis=None, kind="stable"):
            row, column = divmod(int(flat), len(found))
            if overlap[row, column] < min_iou:
                break
            if column not in owner and open_tracks[row] not in owner.values():
                owner[column] = open_tracks[row]
        for column, box in enumerate(found):
            if column not in owner:
                owner[column] = len(tracks)
                tracks.append(([], []))
            frames, boxes = tracks[owner[column]]
            frames.append(frame)
            boxes.append((float(box[0]), float(box[1]), float(box[2]), float(box[3])))
            last_seen[owner[column]] = position
    return [Track(i, tuple(frames), tuple(boxes)) for i, (frames, boxes) in enumerate(tracks)]


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (M, 4), x y w h: (N, M) in [0, 1]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    both = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = a[:, 2:].prod(-1), b[:, 2:].prod(-1)
    return np.asarray(both / (area_a[:, None] + area_b[None] - both))


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ImportError("reading a video needs OpenCV: pip install 'vreid-ext[video]'") from error
    if not hasattr(cv2, "HOGDescriptor_getDefaultPeopleDetector"):
        raise ImportError(
            f"OpenCV {cv2.__version__} has no people detector (dropped in version 5): pip install 'vreid-ext[video]'"
        )
    return cv2


def _frames(cv2: ModuleType, video: Path) -> Iterator[tuple[int, Any]]:
    """Decodes in order from the first frame; seeking is not exact in every container."""
    capture = cv2.VideoCapture(str(video))
    try:
        number = 0
        while True:
            ok, picture = capture.read()
            if not ok:
                return
            yield number, picture
            number += 1
    finally:
        capture.release()


def _probe(cv2: ModuleType, video: Path) -> tuple[int, int, float, int]:
    """Width, height, frames per second, and the number of frames that really decode (headers may claim more)."""
    if not video.is_file():
        raise ValueError(f"video: {video} is not a file")
    length, shape = 0, (0, 0)
    for _, picture in _frames(cv2, video):
        length, shape = length + 1, picture.shape[:2]
    if length == 0:
        raise ValueError(f"video: {video} does not decode; want a video that OpenCV {cv2.__version__} reads")
    capture = cv2.VideoCapture(str(video))
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return shape[1], shape[0], fps, length


def _detect(
    cv2: ModuleType, video: Path, first: int, last: int, stride: int, progress: Progress | None
) -> dict[int, NDArray[np.float64]]:
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    detections = {}
    for number, picture in _frames(cv2, video):
        if number >= last:
            break
        if number < first or (number - first) % stride:
            continue
        detections[number] = _people(cv2, hog, picture)
        if progress is not None:
            progress(number + 1 - first, last - first)
    return detections


def _people(cv2: ModuleType, hog: Any, picture: Any) -> NDArray[np.float64]:
    """Boxes of the people in a picture, best first, each inside the picture."""
    height, width = picture.shape[:2]
    large = cv2.resize(picture, None, fx=_ENLARGE, fy=_ENLARGE)
    if large.shape[0] < 128 or large.shape[1] < 64:
        return np.empty((0, 4))
    windows, weights = hog.detectMultiScale(large, winStride=(8, 8), padding=(8, 8), scale=1.05, groupThreshold=0)
    if len(windows) == 0:
        return np.empty((0, 4))
    windows = np.asarray(windows, dtype=np.float64) / _ENLARGE
    weights = np.asarray(weights, dtype=np.float64).ravel()
    # The detector's threads report in any order: sort, and group here rather than in its order-dependent grouping.
    order = np.lexsort((*windows.T, -weights))
    windows, weights = windows[order], weights[order]
    boxes, rest = [], np.ones(len(windows), dtype=bool)
    overlap = iou(windows, windows)
    for best in range(len(windows)):
        if not rest[best]:
            continue
        group = rest & (overlap[best] > 0.4)
        rest &= ~group
        if group.sum() > 1:  # one lone window is mostly a false alarm
            boxes.append(np.average(windows[group], axis=0, weights=weights[group]))
    if not boxes:
        return np.empty((0, 4))
    x, y, w, h = np.array(boxes).T
    x, y = x + w * (1 - _PERSON[0]) / 2, y + h * (1 - _PERSON[1]) / 2
    x2, y2 = np.minimum(x + w * _PERSON[0], width), np.minimum(y + h * _PERSON[1], height)
    x, y = np.maximum(x, 0), np.maximum(y, 0)
    kept = np.stack([x, y, x2 - x, y2 - y], axis=1)
    return np.asarray(np.round(kept[(kept[:, 2] > 1) & (kept[:, 3] > 1)], 1))


def _track(entry: object, where: str, size: tuple[int, int] | None) -> Track:
    if not isinstance(entry, Mapping) or not {"id", "frames", "boxes"} <= entry.keys():
        raise ValueError(f"{where}: want id, person, frames and boxes")
    number, person, frames, boxes = entry["id"], entry.get("person"), entry["frames"], entry["boxes"]
    if type(number) is not int or number < 0:
        raise ValueError(f"{where}: id is {number!r}; want a whole number from 0")
    if person is not None and (not isinstance(person, str) or not person or Path(person).name != person):
        raise ValueError(f"{where}: person is {person!r}; want a name that can be a folder's, or null")
    if not isinstance(frames, list) or any(type(f) is not int or f < 0 for f in frames):
        raise ValueError(f"{where}: frames are {frames!r:.60}; want a list of frame numbers from 0")
    if not frames or any(b <= a for a, b in zip(frames, frames[1:], strict=False)):
        raise ValueError(f"{where}: frames must be at least one, and rise")
    if not isinstance(boxes, list) or len(boxes) != len(frames):
        raise ValueError(f"{where}: want one box for each of its {len(frames)} frames")
    for box in boxes:
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
            raise ValueError(f"{where}: box {box!r:.60}; want [x, y, w, h] in pixels")
        x, y, w, h = box
        if w <= 0 or h <= 0:
            raise ValueError(f"{where}: box {box} is empty")
        if size is not None and (x + w <= 0 or y + h <= 0 or x >= size[0] or y >= size[1]):
            raise ValueError(f"{where}: box {box} lies outside the picture of {size[0]} x {size[1]} pixels")
    return Track(number, tuple(frames), tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in boxes), person)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _cut(track: Track, first: float, last: float) -> Track:
    kept = [(f, b) for f, b in zip(track.frames, track.boxes, strict=True) if first <= f < last]
    return replace(track, frames=tuple(f for f, _ in kept), boxes=tuple(b for _, b in kept))


def _write_crops(
    cv2: ModuleType, video: Path, tracks: list[Track], places: Mapping[int, list[Path]], progress: Progress | None
) -> int:
    wanted: dict[int, list[tuple[Box, list[Path]]]] = {}
    for track in tracks:
        for folder in places[track.id]:
            folder.mkdir(parents=True)
        for frame, box in zip(track.frames, track.boxes, strict=True):
            wanted.setdefault(frame, []).append((box, places[track.id]))
    total = max(wanted) + 1
    for number, picture in _frames(cv2, video):
        for (x, y, w, h), folders in wanted.get(number, ()):
            left, top = max(math.floor(x), 0), max(math.floor(y), 0)
            crop = picture[top : max(math.ceil(y + h), top + 1), left : max(math.ceil(x + w), left + 1)]
            ok, jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 95])
            if not ok:
                raise RuntimeError(f"OpenCV could not encode the crop {x, y, w, h} of frame {number}")
            for folder in folders:
                (folder / f"{number:06d}.jpg").write_bytes(jpeg.tobytes())
        if progress is not None:
            progress(min(number + 1, total), total)
        if number + 1 >= total:
            break
    return sum(len(entries) for entries in wanted.values())


def _write_boxes(
    path: Path, video: Path, digest: str, fps: float, size: tuple[int, int], tracks: list[Track]
) -> None:
    content = {
        "video": video.name,
        "sha256": digest,
        "fps": fps,
        "size": list(size),
        "tracklets": [{"id": t.id, "person": t.person, "frames": t.frames, "boxes": t.boxes} for t in tracks],
    }
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
