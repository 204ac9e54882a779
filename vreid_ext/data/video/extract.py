"""Extraction of tracklets from videos: detect and link people, or read labeled boxes, and crop the boxes.

A folder of images is a video too: its images are the frames, in natural order of their names.
"""

import hashlib
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
from vreid_ext.data.readers.files import list_folder
from vreid_ext.data.video.boxes import Box, Track, crop_box, read_boxes, write_boxes
from vreid_ext.data.video.mot import read_mot, write_mot
from vreid_ext.data.video.people import Boxes, PeopleDetector, link_boxes

Progress = Callable[[int, int], None]

VIDEO_SUFFIXES = (
    ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".m1v", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv",
    ".ts", ".vob", ".webm", ".wmv", ".y4m",
)  # fmt: skip

# Number of successive failed reads after which the video is considered finished. Takes less than a second.
_MISSES = 3_000


class NobodyError(ValueError):
    """No track of people in the video is long enough."""


@dataclass(frozen=True)
class Extraction:
    """Result of `extract_tracklets` and `extract_videos`.

    Attributes:
        root: the folder that was written.
        tracks: the written tracks.
        train: number of training tracklets.
        crops: number of cropped boxes.
        too_short: number of tracks dropped because they have fewer than `min_frames` boxes.
        notes: one sentence for each thing that was missing, damaged or skipped.
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
        """One sentence, followed by one line per note."""
        named = {t.person for t in self.tracks} - {None}
        unknown = sum(t.person is None for t in self.tracks)
        who = [f"{len(named)} persons"] if named else []
        if unknown:
            who.append(f"{unknown} of unknown identity, each counted as one person")
        split = f": {self.train} train, {len(self.tracks) - self.train} test" if self.train else ""
        short = f"; {self.too_short} shorter tracks dropped" if self.too_short else ""
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
    """Detect, link and crop the people of a video. Writes the layout of `data.tracklet_folder` to `out`.

    Writes `out/<person>/<camera>/<tracklet>/<frame>.jpg`, and all boxes as `out/tracklets.json` in the format
    of `boxes` and as `out/tracklets.txt` in MOT text (`data.video.mot`), which has no names of persons.
    Without a boxes file the identities are unknown and each tracklet counts as one person. To sort the
    tracklets by person, enter the names in `tracklets.json` and pass it as `boxes` in a second call. With
    `split`, tracklets that end before that frame are written to `out/train`, all others to both `out/query`
    and `out/gallery`.

    Frames that cannot be decoded are skipped but still numbered; `Extraction.notes` reports how many. If the
    frames are evenly spaced in time, frame i is at i / fps seconds after the first frame, and frames that are
    missing from a damaged container are numbered too. The same video and options give the same files. `out`
    is created only when it is complete.

    Args:
        video: a file that OpenCV can decode, or a folder with the images of one video.
        out: a folder that does not exist or is empty.
        boxes: boxes to crop instead of detecting people: a boxes file (`read_boxes`), or a `.txt` file with
            MOT text; `stride` is then ignored.
        start: first frame, counted from 0.
        stop: frame after the last one; None: the end of the video.
        split: first frame of the test period.
        stride: detect people in every `stride`-th frame.
        min_frames: tracks with fewer boxes are dropped and counted.
        camera: name of the camera folder; must differ between videos that are merged into one data set.
        progress: called as `progress(frames_done, total_frames)`.

    Raises:
        ValueError: an argument is out of range, the video cannot be decoded or contains no people, or the
            boxes file is malformed, belongs to another video or has a box outside the frame.
        FileExistsError: `out` is not empty.
        ImportError: OpenCV is not installed, or it has no people detector and `boxes` is None.
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
        labelled, left_out = _read_labels(Path(boxes), clip)
        if left_out:
            notes = (
                *notes,
                f"{Path(boxes).name}: {left_out} boxes are left out (confidence 0, or no pedestrian)",
            )
        last = max((t.frames[-1] for t in labelled), default=0)
        if last >= clip.length:
            raise ValueError(
                f"boxes: expected frame numbers below {clip.length} (length of {video}, counted from 0), got "
                f"{last} in {boxes}"
            )
        within = [_of_frames(t, set(range(start, stop))) for t in labelled]
        found = [_of_frames(t, set(clip.numbers)) for t in within]
        if lost := sum(len(t.frames) for t in within) - sum(len(t.frames) for t in found):
            notes = (*notes, f"{video.name}: {lost} boxes are on frames that cannot be decoded")
    tracks = [t for t in found if len(t.frames) >= min_frames]
    if not tracks:
        name, source = ("video", video) if boxes is None else ("boxes", boxes)
        raise NobodyError(
            f"{name}: expected a track of at least {min_frames} boxes in frames {start} to {stop}, got none "
            f"in {source}"
        )
    train = {t.id for t in tracks if split is not None and t.frames[-1] < split}
    if split is not None and len(train) in (0, len(tracks)):
        raise ValueError(
            f"split: expected training and test tracklets, got no {'test' if train else 'training'} tracklet "
            f"with frame {split}"
        )

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
        write_mot(root / "tracklets.txt", tracks)
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
    """Call `extract_tracklets` for each video in a folder and merge the results into one data set.

    Each video is one camera, named after the file without its suffix. The person folders of all cameras and
    one `tracklets-<camera>.json` and `.txt` per camera are written to `out`. A video is skipped with a
    warning and a note if it cannot be decoded, contains no people, has no boxes file or does not match it.
    Files that are not videos are skipped with a note.

    Args:
        videos: folder with the videos.
        out: a folder that does not exist or is empty.
        boxes: folder with a boxes file `tracklets-<camera>.json` for each video, e.g. the `out` of an earlier
            call after entering names, or else with MOT text `tracklets-<camera>.txt`. Equal names in several
            files are the same person.
        start, stop, stride, min_frames, progress: see `extract_tracklets`.

    Raises:
        ValueError: an argument is out of range, a boxes file is malformed, the folder contains no video or
            two videos with the same name, or no video has a tracklet.
    """
    videos, out = Path(videos), Path(out)
    _check_range(start, stop, stride, min_frames)
    entries = sorted(videos.iterdir())
    files = [file for file in entries if is_video(file)]
    if not files:
        raise ValueError(
            f"video: expected a folder with videos ({', '.join(VIDEO_SUFFIXES)}), got {videos} without any"
        )
    cameras = [nfc(file.stem) for file in files]
    if repeated := {camera for camera in cameras if cameras.count(camera) > 1}:
        raise ValueError(
            f"video: expected unique video names, because they name the cameras, got two videos named "
            f"{min(repeated)} in {videos}"
        )
    others = [entry.name for entry in entries if entry not in files]
    labels = {file: _boxes_of(file, boxes) for file in files}
    for path in labels.values():
        if path is not None and path.is_file():
            _read_labels(path)  # report malformed files before the first video is processed
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
                notes.append(f"{file.name}: {' '.join(str(error).split())}; skipped")
                warnings.warn(notes[-1], stacklevel=2)
                continue
            found.append(extraction)
            notes += extraction.notes
            for suffix in ("json", "txt"):
                (part / f"tracklets.{suffix}").rename(root / f"tracklets-{file.stem}.{suffix}")
            for person in part.iterdir():
                (root / person.name).mkdir(exist_ok=True)
                (person / file.stem).rename(root / person.name / file.stem)
            shutil.rmtree(part)
        if not found:
            raise NobodyError(
                f"video: expected people in the videos of {videos}, got none in all {len(files)}: {notes[0]}"
            )
    if others:
        shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        notes.append(f"{videos}: skipped {len(others)} entries that are not videos: {shown}")
    return Extraction(
        out,
        tuple(track for each in found for track in each.tracks),
        train=0,
        crops=sum(each.crops for each in found),
        too_short=sum(each.too_short for each in found),
        notes=tuple(notes),
    )


def is_video(path: Path) -> bool:
    """Whether a path is a visible file with the suffix of a video. (macOS adds ._NAME for each NAME.)"""
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def is_image_folder(path: Path) -> bool:
    """Whether a path is a folder with images and without videos."""
    return path.is_dir() and bool(list_folder(path).images) and not any(map(is_video, path.iterdir()))


def _boxes_of(video: Path, boxes: str | Path | None) -> Path | None:
    if boxes is None:
        return None
    named, mot = (Path(boxes, f"tracklets-{video.stem}.{suffix}") for suffix in ("json", "txt"))
    return mot if mot.is_file() and not named.is_file() else named


def _read_labels(boxes: Path, clip: "_Clip | None" = None) -> tuple[list[Track], int]:
    """Read a boxes file or MOT text, and check that it fits the video. Also returns the lines left out."""
    size = None if clip is None else clip.size
    if boxes.suffix.lower() == ".txt":
        return read_mot(boxes, size=size)
    return read_boxes(boxes, sha256=None if clip is None else clip.sha256, size=size), 0


def _check_range(start: int, stop: int | None, stride: int, min_frames: int) -> None:
    for name, value, least in (("start", start, 0), ("stride", stride, 1), ("min_frames", min_frames, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if stop is not None and stop <= start:
        raise ValueError(f"stop: expected more than start, {start}, got {stop}")


@dataclass(frozen=True)
class _Clip:
    """A video, or a folder of images, with at least one frame that can be decoded.

    Attributes:
        size: (width, height) of the first decoded frame.
        numbers: numbers of the decoded frames, ascending (`number_frames`).
        times: time in seconds by frame number, or None if the frames are evenly spaced in time.
        notes: one sentence for each irregularity of the file.
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
        """Number of frames up to the last decoded one, including those that cannot be decoded."""
        return self.numbers[-1] + 1

    @classmethod
    def open(cls, cv2: ModuleType, path: Path) -> "_Clip":
        of_images = path.is_dir()
        if not of_images and not path.is_file():
            raise ValueError(f"video: expected an existing file or folder of images, got {path}")
        try:
            digest = _digest(_images(path) if of_images else [path])
        except OSError as error:
            raise ValueError(f"video: {path} cannot be read ({error.strerror})") from error
        misses, seconds, shapes = [], [], []
        for missed, second, picture in _pictures(cv2, path):
            misses.append(missed)
            seconds.append(second)
            shapes.append(picture.shape[:2])
        if not shapes:
            raise ValueError(
                f"video: expected a video that OpenCV {cv2.__version__} can decode, got no frame from {path}"
            )
        fps, announced = (0.0, 0.0) if of_images else _announced(cv2, path)
        # OpenCV reports time 0 for frames without a timestamp, e.g. the last frame of some MPEG files.
        for i in range(1, len(seconds)):
            if seconds[i] == 0 < fps:
                seconds[i] = seconds[i - 1] + 1 / fps
        numbers, even = ([*map(int, seconds)], True) if of_images else number_frames(misses, seconds, fps)
        rising = all(np.diff(seconds) > 0)
        notes = []
        if lost := numbers[-1] + 1 - len(numbers):
            notes.append(f"{lost} of {numbers[-1] + 1} frames are missing or cannot be decoded")
        if 0 < announced < 2**31 and announced != numbers[-1] + 1:
            notes.append(f"the header states {announced:.0f} frames, the file has {numbers[-1] + 1}")
        if changed := sum(shape != shapes[0] for shape in shapes):
            notes.append(f"{changed} frames were resized, because they differ in size from the first frame")
        if not even:
            how = "not evenly spaced in time" if rising else "not in temporal order"
            notes.append(f"the frames are {how}, so frame numbers are counts and not times")
        return cls(
            cv2, path, (shapes[0][1], shapes[0][0]), tuple(numbers),
            dict(zip(numbers, seconds)) if rising and not even else None,
            fps, digest, tuple(f"{path.name}: {note}" for note in notes),
        )  # fmt: skip

    def frames(self, selection: range) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (number, picture) of the selected frames.

        Decodes the video from the start, because seeking is not exact for many formats.
        """
        width, height = self.size
        for number, (_, _, picture) in zip(self.numbers, _pictures(self.cv2, self.path)):
            if number >= selection.stop:
                break
            if number in selection:
                if picture.shape[:2] != (height, width):
                    picture = self.cv2.resize(picture, (width, height))
                yield number, picture

    def detect(
        self, detector: PeopleDetector, selection: range, progress: Progress | None
    ) -> dict[int, Boxes]:
        detections = {}
        total = sum(number in selection for number in self.numbers)
        for number, picture in self.frames(selection):
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
        selection = range(min(on_frame), max(on_frame) + 1)
        for number, picture in self.frames(selection):
            for box, folders in on_frame.get(number, ()):
                crop = crop_box(picture, box)
                ok, jpeg = self.cv2.imencode(".jpg", crop, [self.cv2.IMWRITE_JPEG_QUALITY, 95])
                if not ok:
                    raise RuntimeError(f"OpenCV could not encode box {box} of frame {number}")
                for folder in folders:
                    (folder / f"{number:06d}.jpg").write_bytes(jpeg.tobytes())
            _report(progress, number - selection.start + 1, len(selection))


def number_frames(misses: Sequence[int], seconds: Sequence[float], fps: float) -> tuple[list[int], bool]:
    """Number the decoded frames. Returns the numbers and whether they are proportional to time.

    In a damaged video, either reads fail or the timestamps have gaps. If all time steps are
    multiples of 1 / fps, the frames are numbered by time, otherwise by counting frames and failed reads.

    Args:
        misses: number of failed reads before each frame.
        seconds: time of each frame.
        fps: frames per second according to the container.
    """
    steps = np.diff(seconds) * fps
    whole = np.round(steps)
    # If no step is 1, fps is probably the resolution of the clock and not the frame rate.
    if len(steps) and (abs(steps - whole) < 0.2).all() and whole.min() == 1:
        return (misses[0] + np.cumsum([0, *whole])).astype(int).tolist(), True
    counted = np.cumsum(np.add(misses, 1)) - 1
    return counted.tolist(), len(steps) == 0


def _images(folder: Path) -> list[Path]:
    return [folder / name for name in list_folder(folder).images]


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of the contents of the files, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while part := file.read(2**20):
                digest.update(part)
    return digest.hexdigest()


def _announced(cv2: ModuleType, video: Path) -> tuple[float, float]:
    """Frames per second and number of frames according to the container."""
    capture = cv2.VideoCapture(str(video))
    try:
        return float(capture.get(cv2.CAP_PROP_FPS)), float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ImportError("reading videos requires OpenCV: pip install 'vreid-ext[video]'") from error
    return cv2


def _people_detector(cv2: ModuleType) -> PeopleDetector:
    if not hasattr(cv2, "HOGDescriptor_getDefaultPeopleDetector"):
        raise ImportError(
            f"expected OpenCV before version 5, got {cv2.__version__}, which has no people detector: "
            "pip install 'vreid-ext[video]', or pass labeled boxes (--boxes)"
        )
    return PeopleDetector(cv2)


def _pictures(cv2: ModuleType, path: Path) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
    """Yield (number of failed reads before it, time in seconds, picture) for each frame that is decoded.

    Images have no time; their number takes its place.
    """
    if path.is_dir():
        missed = 0
        for number, image in enumerate(_images(path)):
            picture = cv2.imread(str(image))
            if picture is not None:
                yield missed, float(number), picture
            missed = 0 if picture is not None else missed + 1
        return
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
    """The track restricted to the given frames."""
    kept = [(f, b) for f, b in zip(track.frames, track.boxes) if f in numbers]
    return replace(track, frames=tuple(f for f, _ in kept), boxes=tuple(b for _, b in kept))


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
