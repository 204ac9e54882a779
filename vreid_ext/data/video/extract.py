"""Tracklets out of a video: find the people, or take boxes labelled by hand, and cut them out."""

import hashlib
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vreid_ext._files import check_new_folder, new_folder
from vreid_ext._lock import alone
from vreid_ext.data.names import is_folder_name, nfc
from vreid_ext.data.video.boxes import Box, Track, read_boxes, write_boxes
from vreid_ext.data.video.people import Boxes, PeopleDetector, link_boxes

Progress = Callable[[int, int], None]

VIDEO_SUFFIXES = (
    ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".m1v", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv",
    ".ts", ".vob", ".webm", ".wmv", ".y4m",
)  # fmt: skip

# Reads that may fail in a row before a video is taken to have ended; there they take less than a second.
_MISSES = 3_000


class NobodyError(ValueError):
    """A video with no track of people that is long enough."""


@dataclass(frozen=True)
class Extraction:
    """What `extract_tracklets` wrote.

    tracks: those in the folder; train: how many of them are training tracklets; crops: boxes cut out;
    too_short: tracks left out for having fewer than `min_frames` boxes; notes: what was missing, damaged or
    left out, a sentence each.
    """

    root: Path
    tracks: tuple[Track, ...] = field(repr=False)
    train: int
    crops: int
    too_short: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """One sentence for a terminal, and a line for each note."""
        named = {t.person for t in self.tracks} - {None}
        unknown = sum(t.person is None for t in self.tracks)
        who = [f"{len(named)} persons"] if named else []
        if unknown:
            who.append(f"{unknown} of unknown identity, each a person of its own")
        split = f": {self.train} train, {len(self.tracks) - self.train} test" if self.train else ""
        short = f"; {self.too_short} shorter tracks left out" if self.too_short else ""
        what = f"{len(self.tracks)} tracklets{split} ({', '.join(who)})"
        return "\n".join([f"{what}, {self.crops} crops in {self.root}{short}", *self.notes])


@alone("out")
def extract_tracklets(
    video: str | Path,
    out: str | Path,
    *,
    boxes: str | Path | None = None,
    start: int = 0,
    stop: int | None = None,
    split: int | None = None,
    stride: int = 2,
    min_frames: int = 4,
    camera: str = "cam1",
    progress: Progress | None = None,
) -> Extraction:
    """Detects, links and crops the people of a video into `out`, in the layout that `TrackletFolder` reads.

    Writes `out/<person>/<camera>/<tracklet>/<frame>.jpg`, and `out/tracklets.json` in the form that `boxes`
    takes: name the persons in it by hand, pass it as `boxes`, and the tracklets are sorted by person. Without
    a boxes file identities are unknown and each tracklet is a person of its own. With `split`, tracklets that
    end before that frame go to `out/train`, every other one to both `out/query` and `out/gallery`.

    Frames that do not decode are passed over, and keep their numbers: `Extraction.notes` counts them. Where
    the frames of a video are evenly spaced in time, a number is a time, number / fps seconds after the first
    frame, and those that a damaged container has lost without a word count, too. Same video and options, same
    files. The folder appears under its name only when it is complete.

    Args:
        video: any file that OpenCV decodes.
        out: a folder that does not exist yet, or an empty one.
        boxes: a boxes file (`read_boxes`) to cut out instead of detecting; it names its own frames.
        start: first frame used, from 0.
        stop: frame before which to stop; the end of the video by default.
        split: frame that parts training from test tracklets.
        stride: people are looked for on every `stride`-th frame.
        min_frames: tracks with fewer boxes are left out and counted.
        camera: name of the camera folder; one for each camera where folders of several are put together.
        progress: called with (frames done, frames to do).

    Raises:
        ValueError: an argument out of range, a video that does not decode or has nobody in it, a boxes file
            that is malformed or belongs to another video, a box outside the picture.
        FileExistsError: `out` holds something already.
        ImportError: OpenCV is missing, or, without `boxes`, its people detector.
    """
    video, out = Path(video), Path(out)
    _check_range(start, stop, stride, min_frames)
    if not is_folder_name(camera):
        raise ValueError(f"camera: expected the name of a folder, got {camera!r}")
    check_new_folder(out)
    cv2 = _opencv()
    detector = _people_detector(cv2) if boxes is None else None
    clip = _Clip.open(cv2, video)
    stop = clip.length if stop is None else min(stop, clip.length)
    notes = clip.notes

    if detector is not None:
        found = link_boxes(clip.detect(detector, range(start, stop, stride), progress), times=clip.times)
    else:
        assert boxes is not None
        labelled = read_boxes(boxes, sha256=clip.sha256, size=clip.size)
        beyond = max((t.frames[-1] for t in labelled), default=0)
        if beyond >= clip.length:
            raise ValueError(f"boxes: {boxes} has one on frame {beyond}; {video} has {clip.length} frames")
        within = [_of_frames(t, set(range(start, stop))) for t in labelled]
        found = [_of_frames(t, set(clip.numbers)) for t in within]
        if lost := sum(len(t.frames) for t in within) - sum(len(t.frames) for t in found):
            notes = (*notes, f"{video.name}: {lost} boxes lie on frames that do not decode")
    tracks = [t for t in found if len(t.frames) >= min_frames]
    if not tracks:
        source = video if boxes is None else boxes
        raise NobodyError(f"video: {source} has no track of {min_frames} boxes in frames {start} to {stop}")
    train = {t.id for t in tracks if split is not None and t.frames[-1] < split}
    if split is not None and len(train) in (0, len(tracks)):
        raise ValueError(f"split: frame {split} leaves no {'test' if train else 'training'} tracklet")

    def folders(track: Track) -> list[Path]:
        parts = ["."] if split is None else ["train"] if track.id in train else ["query", "gallery"]
        person = track.person or f"{camera}-unknown{track.id:04d}"
        name = f"{track.id:04d}"
        return [Path(part, person, camera, name) for part in parts]

    with new_folder(out) as root:
        places = {t.id: [root / folder for folder in folders(t)] for t in tracks}
        clip.crop(tracks, places, progress)
        write_boxes(
            root / "tracklets.json",
            tracks,
            video=video.name,
            sha256=clip.sha256,
            fps=clip.fps,
            size=clip.size,
        )
    crops = sum(len(t.frames) for t in tracks)
    return Extraction(out, tuple(tracks), len(train), crops, len(found) - len(tracks), notes)


@alone("out")
def extract_videos(
    videos: str | Path,
    out: str | Path,
    *,
    boxes: str | Path | None = None,
    start: int = 0,
    stop: int | None = None,
    stride: int = 2,
    min_frames: int = 4,
    progress: Progress | None = None,
) -> Extraction:
    """`extract_tracklets` of every video in a folder: each is a camera, named as the file without its suffix.

    Writes the persons of all cameras side by side, and `out/tracklets-<camera>.json` for each camera. A video
    that does not decode, without people or without a boxes file, and one that its boxes file does not fit, is
    left out with a warning and a note. So is every other file, with a note alone.

    Args:
        boxes: a folder with a boxes file `tracklets-<camera>.json` for each video, such as an earlier `out`
            in whose files persons were named; one name in several files is one person.

    Raises:
        ValueError: an argument out of range, a malformed boxes file, no video in the folder, two of one name,
            or tracklets in none.
    """
    videos, out = Path(videos), Path(out)
    _check_range(start, stop, stride, min_frames)
    entries = sorted(videos.iterdir())
    files = [file for file in entries if is_video(file)]
    if not files:
        raise ValueError(f"video: {videos} has no file that ends in {', '.join(VIDEO_SUFFIXES)}")
    cameras = [nfc(file.stem) for file in files]
    if twice := {camera for camera in cameras if cameras.count(camera) > 1}:
        raise ValueError(f"video: {videos} has two videos named {min(twice)}, which would be one camera")
    others = [entry.name for entry in entries if entry not in files]
    labels = {file: _boxes_of(file, boxes) for file in files}
    for path in labels.values():
        if path is not None and path.is_file():
            read_boxes(path)  # a slip of the pen is said before hours of work
    cv2 = _opencv()
    found: list[Extraction] = []
    notes: list[str] = []
    with new_folder(out) as root:
        for file in files:
            part = root / f".{file.stem}"
            try:
                extraction = extract_tracklets(
                    file, part, boxes=labels[file], start=start, stop=stop, stride=stride,
                    min_frames=min_frames, camera=file.stem, progress=progress,
                )  # fmt: skip
            except (ValueError, RuntimeError, cv2.error) as error:
                notes.append(f"{file.name}: {' '.join(str(error).split())}; left out")
                warnings.warn(notes[-1], stacklevel=2)
                continue
            found.append(extraction)
            notes += extraction.notes
            (part / "tracklets.json").rename(root / f"tracklets-{file.stem}.json")
            for person in part.iterdir():
                (root / person.name).mkdir(exist_ok=True)
                (person / file.stem).rename(root / person.name / file.stem)
            shutil.rmtree(part)
        if not found:
            raise NobodyError(f"video: nobody in any of the {len(files)} videos of {videos}: {notes[0]}")
    if others:
        shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        notes.append(f"{videos}: {len(others)} entries are no videos by their names: {shown}")
    return Extraction(
        out,
        tuple(track for each in found for track in each.tracks),
        train=0,
        crops=sum(each.crops for each in found),
        too_short=sum(each.too_short for each in found),
        notes=tuple(notes),
    )


def is_video(path: Path) -> bool:
    """Whether a path is a visible file with a video's suffix; macOS puts hidden ._NAME beside every NAME."""
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _boxes_of(video: Path, boxes: str | Path | None) -> Path | None:
    return None if boxes is None else Path(boxes, f"tracklets-{video.stem}.json")


def _check_range(start: int, stop: int | None, stride: int, min_frames: int) -> None:
    for name, value, least in (("start", start, 0), ("stride", stride, 1), ("min_frames", min_frames, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if stop is not None and stop <= start:
        raise ValueError(f"stop: expected more than start, {start}, got {stop}")


@dataclass(frozen=True)
class _Clip:
    """A video that decodes.

    size: (width, height) of its first frame. numbers: of the frames that decode, rising from 0 or, where the
    first ones do not, from a later one. times: seconds by number where the frames are not evenly spaced.
    """

    cv2: ModuleType
    path: Path
    size: tuple[int, int]
    numbers: tuple[int, ...]
    times: Mapping[int, float] | None
    fps: float
    sha256: str
    notes: tuple[str, ...]

    @property
    def length(self) -> int:
        """Frames up to the last that decodes, with those between that do not."""
        return self.numbers[-1] + 1

    @classmethod
    def open(cls, cv2: ModuleType, path: Path) -> "_Clip":
        if not path.is_file():
            raise ValueError(f"video: {path} is not a file")
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(f"video: {path} cannot be read ({error.strerror})") from error
        misses, seconds, shapes = [], [], []
        for missed, second, picture in _pictures(cv2, path):
            misses.append(missed)
            seconds.append(second)
            shapes.append(picture.shape[:2])
        if not shapes:
            raise ValueError(f"video: {path} does not decode; OpenCV {cv2.__version__} reads no frame of it")
        capture = cv2.VideoCapture(str(path))
        fps, announced = (float(capture.get(key)) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        # A frame without a time of its own has 0, such as the last of some MPEG files.
        for place in range(1, len(seconds)):
            if seconds[place] == 0 < fps:
                seconds[place] = seconds[place - 1] + 1 / fps
        numbers, even = number_frames(misses, seconds, fps)
        rising = all(np.diff(seconds) > 0)
        notes = []
        if lost := numbers[-1] + 1 - len(numbers):
            notes.append(f"{lost} of {numbers[-1] + 1} frames are missing or do not decode")
        if 0 < announced < 2**31 and announced != numbers[-1] + 1:
            notes.append(f"the file announces {announced:.0f} frames and has {numbers[-1] + 1}")
        if changed := sum(shape != shapes[0] for shape in shapes):
            notes.append(f"{changed} frames are of another size than the first, and were resized")
        if not even:
            how = "unevenly spaced in time" if rising else "not in the order of their times"
            notes.append(f"the frames are {how}, so that their numbers count them and are no times")
        return cls(
            cv2, path, (shapes[0][1], shapes[0][0]), tuple(numbers),
            dict(zip(numbers, seconds)) if rising and not even else None,
            fps, digest, tuple(f"{path.name}: {note}" for note in notes),
        )  # fmt: skip

    def frames(self, wanted: range) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(number, picture) of the wanted frames; decodes from the first, as seeking is often inexact."""
        width, height = self.size
        for number, (_, _, picture) in zip(self.numbers, _pictures(self.cv2, self.path)):
            if number >= wanted.stop:
                break
            if number in wanted:
                if picture.shape[:2] != (height, width):
                    picture = self.cv2.resize(picture, (width, height))
                yield number, picture

    def detect(self, detector: PeopleDetector, wanted: range, progress: Progress | None) -> dict[int, Boxes]:
        detections = {}
        total = sum(number in wanted for number in self.numbers)
        for number, picture in self.frames(wanted):
            detections[number] = detector(picture)
            _report(progress, len(detections), total)
        return detections

    def crop(self, tracks: list[Track], places: Mapping[int, list[Path]], progress: Progress | None) -> None:
        on_frame: dict[int, list[tuple[Box, list[Path]]]] = {}
        for track in tracks:
            for folder in places[track.id]:
                folder.mkdir(parents=True)
            for frame, box in zip(track.frames, track.boxes):
                on_frame.setdefault(frame, []).append((box, places[track.id]))
        wanted = range(min(on_frame), max(on_frame) + 1)
        for number, picture in self.frames(wanted):
            for (x, y, w, h), folders in on_frame.get(number, ()):
                top, left = max(math.floor(y), 0), max(math.floor(x), 0)
                crop = picture[top : math.ceil(y + h), left : math.ceil(x + w)]
                ok, jpeg = self.cv2.imencode(".jpg", crop, [self.cv2.IMWRITE_JPEG_QUALITY, 95])
                if not ok:
                    raise RuntimeError(f"OpenCV could not encode box {x, y, w, h} of frame {number}")
                for folder in folders:
                    (folder / f"{number:06d}.jpg").write_bytes(jpeg.tobytes())
            _report(progress, number - wanted.start + 1, len(wanted))


def number_frames(misses: Sequence[int], seconds: Sequence[float], fps: float) -> tuple[list[int], bool]:
    """Numbers of the frames that decode, and whether they are times.

    Containers tell damage in two ways: a read that fails, or a frame that comes late because those before it
    were dropped. Where all steps in time are whole multiples of 1 / fps, numbers follow the time, else they
    count frames and failed reads.

    Args:
        misses: failed reads before each frame.
        seconds: time of each frame.
        fps: frames per second that the container announces.
    """
    steps = np.diff(seconds) * fps
    whole = np.round(steps)
    # A file in which no step is one frame announces the unit of its clock in place of its rate.
    if len(steps) and (abs(steps - whole) < 0.2).all() and whole.min() == 1:
        return (misses[0] + np.cumsum([0, *whole])).astype(int).tolist(), True
    counted = np.cumsum(np.add(misses, 1)) - 1
    return counted.tolist(), len(steps) == 0


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ImportError("reading a video needs OpenCV: pip install 'vreid-ext[video]'") from error
    return cv2


def _people_detector(cv2: ModuleType) -> PeopleDetector:
    if not hasattr(cv2, "HOGDescriptor_getDefaultPeopleDetector"):
        raise ImportError(
            f"expected OpenCV before version 5, got {cv2.__version__}, which has no people detector: "
            "pip install 'vreid-ext[video]', or give labelled boxes: --boxes"
        )
    return PeopleDetector(cv2)


def _pictures(cv2: ModuleType, path: Path) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
    """(reads that failed before it, time in seconds, picture) of every frame that decodes."""
    capture = cv2.VideoCapture(str(path))
    try:
        missed = 0
        while capture.isOpened() and missed < _MISSES:
            decodes, picture = capture.read()
            if decodes:
                yield missed, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, picture
            missed = 0 if decodes else missed + 1
    finally:
        capture.release()


def _of_frames(track: Track, numbers: set[int]) -> Track:
    """The boxes of a track on these frames."""
    kept = [(f, b) for f, b in zip(track.frames, track.boxes) if f in numbers]
    return replace(track, frames=tuple(f for f, _ in kept), boxes=tuple(b for _, b in kept))


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
