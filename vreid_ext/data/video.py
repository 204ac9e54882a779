"""Tracklets out of a video: find the people, or take boxes labelled by hand, and cut them out."""

import hashlib
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vreid_ext.data.boxes import Box, Track, is_folder_name, read_boxes, write_boxes
from vreid_ext.data.new_folder import check_new_folder, new_folder
from vreid_ext.data.people import Boxes, PeopleDetector, link_boxes

Progress = Callable[[int, int], None]

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


class NobodyError(ValueError):
    """A video with no track of people that is long enough."""


@dataclass(frozen=True)
class Extraction:
    """What `extract_tracklets` wrote.

    tracks: those in the folder; train: how many of them are training tracklets; crops: boxes cut out;
    too_short: tracks left out for having fewer than `min_frames` boxes.
    """

    root: Path
    tracks: tuple[Track, ...]
    train: int
    crops: int
    too_short: int

    def summary(self) -> str:
        """One sentence for a terminal."""
        named = {t.person for t in self.tracks} - {None}
        unknown = sum(t.person is None for t in self.tracks)
        who = [f"{len(named)} persons"] if named else []
        if unknown:
            who.append(f"{unknown} of unknown identity, each a person of its own")
        split = f": {self.train} train, {len(self.tracks) - self.train} test" if self.train else ""
        short = f"; {self.too_short} shorter tracks left out" if self.too_short else ""
        what = f"{len(self.tracks)} tracklets{split} ({', '.join(who)})"
        return f"{what}, {self.crops} crops in {self.root}{short}"


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

    Same video and options, same files. The folder appears under its name only when it is complete.

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
    for name, value, least in (("start", start, 0), ("stride", stride, 1), ("min_frames", min_frames, 1)):
        if value < least:
            raise ValueError(f"{name}: got {value}; want at least {least}")
    if stop is not None and stop <= start:
        raise ValueError(f"stop: got {stop}; want more than start, {start}")
    if not is_folder_name(camera):
        raise ValueError(f"camera: got {camera!r}; want the name of a folder")
    check_new_folder(out)
    cv2 = _opencv()
    detector = _people_detector(cv2) if boxes is None else None
    clip = _Clip.open(cv2, video)
    stop = clip.length if stop is None else min(stop, clip.length)

    if detector is not None:
        found = link_boxes(clip.detect(detector, range(start, stop, stride), progress))
    else:
        assert boxes is not None
        labelled = read_boxes(boxes, sha256=clip.sha256, size=clip.size)
        beyond = max((t.frames[-1] for t in labelled), default=0)
        if beyond >= clip.length:
            raise ValueError(f"boxes: {boxes} has one on frame {beyond}; {video} has {clip.length} frames")
        found = [_between(t, start, stop) for t in labelled]
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
    return Extraction(out, tuple(tracks), len(train), crops, len(found) - len(tracks))


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
    without people is left out with a warning.

    Args:
        boxes: a folder with a boxes file `tracklets-<camera>.json` for each video, such as an earlier `out`
            in whose files persons were named; one name in several files is one person.

    Raises:
        ValueError: as `extract_tracklets`; no video in the folder, two of one name, or nobody in any.
    """
    videos, out = Path(videos), Path(out)
    files = sorted(file for file in videos.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        raise ValueError(f"video: {videos} has no file that ends in {', '.join(VIDEO_SUFFIXES)}")
    cameras = [file.stem for file in files]
    if twice := {camera for camera in cameras if cameras.count(camera) > 1}:
        raise ValueError(f"video: {videos} has two videos named {min(twice)}, which would be one camera")
    found: list[Extraction] = []
    with new_folder(out) as root:
        for file in files:
            part = root / f".{file.stem}"
            try:
                extraction = extract_tracklets(
                    file, part, boxes=None if boxes is None else Path(boxes, f"tracklets-{file.stem}.json"),
                    start=start, stop=stop, stride=stride, min_frames=min_frames, camera=file.stem,
                    progress=progress,
                )  # fmt: skip
            except NobodyError as error:
                warnings.warn(f"{error}; left out", stacklevel=2)
                continue
            found.append(extraction)
            (part / "tracklets.json").rename(root / f"tracklets-{file.stem}.json")
            for person in part.iterdir():
                (root / person.name).mkdir(exist_ok=True)
                (person / file.stem).rename(root / person.name / file.stem)
            shutil.rmtree(part)
        if not found:
            raise NobodyError(f"video: nobody in any of the {len(files)} videos of {videos}")
    return Extraction(
        out,
        tuple(track for each in found for track in each.tracks),
        train=0,
        crops=sum(each.crops for each in found),
        too_short=sum(each.too_short for each in found),
    )


@dataclass(frozen=True)
class _Clip:
    """A video that decodes; size is (width, height), length counts the frames that really do."""

    cv2: ModuleType
    path: Path
    size: tuple[int, int]
    length: int
    fps: float
    sha256: str

    @classmethod
    def open(cls, cv2: ModuleType, path: Path) -> "_Clip":
        if not path.is_file():
            raise ValueError(f"video: {path} is not a file")
        length, shape = 0, (0, 0)
        for picture in _pictures(cv2, path):
            length, shape = length + 1, picture.shape[:2]
        if not length:
            raise ValueError(f"video: {path} does not decode; OpenCV {cv2.__version__} reads no frame of it")
        capture = cv2.VideoCapture(str(path))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(cv2, path, (shape[1], shape[0]), length, fps, digest)

    def frames(self, wanted: range) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(number, picture) of the wanted frames; decodes from the first, as seeking is often inexact."""
        for number, picture in zip(range(wanted.stop), _pictures(self.cv2, self.path)):
            if number in wanted:
                yield number, picture

    def detect(self, detector: PeopleDetector, wanted: range, progress: Progress | None) -> dict[int, Boxes]:
        detections = {}
        for number, picture in self.frames(wanted):
            detections[number] = detector(picture)
            _report(progress, len(detections), len(wanted))
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


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise ImportError("reading a video needs OpenCV: pip install 'vreid-ext[video]'") from error
    return cv2


def _people_detector(cv2: ModuleType) -> PeopleDetector:
    if not hasattr(cv2, "HOGDescriptor_getDefaultPeopleDetector"):
        raise ImportError(
            f"OpenCV {cv2.__version__} has no people detector, want below 5: pip install 'vreid-ext[video]', "
            "or give labelled boxes: --boxes"
        )
    return PeopleDetector(cv2)


def _pictures(cv2: ModuleType, path: Path) -> Iterator[NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(path))
    try:
        while (read := capture.read())[0]:
            yield read[1]
    finally:
        capture.release()


def _between(track: Track, start: int, stop: int) -> Track:
    kept = [(f, b) for f, b in zip(track.frames, track.boxes) if start <= f < stop]
    return replace(track, frames=tuple(f for f, _ in kept), boxes=tuple(b for _, b in kept))


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
