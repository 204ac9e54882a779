"""Features of tracks that grow frame by frame."""

import math
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from vreid_ext import _checks


@dataclass(slots=True)
class _Track:
    """State of a track: `total` is the sum of the features of `clips` clips; `images` are later frames."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0
    time: float = math.nan
    images: list[Tensor] = field(default_factory=list)
    total: Tensor | None = None
    clips: int = 0
    feature: Tensor | None = None  # of all frames so far, if it has been computed
    finished: bool = False


class Tracks:
    """The features of tracks, equal to those of tracklets with the same frames.

    With the sampling "dense" a track keeps the sum of its complete clips and fewer than T frames. The other
    samplings select frames of the whole tracklet, so all frames are kept. Calls for different tracks run at
    the same time.

    Args:
        embed: (frames of a tracklet) -> feature (D,).
        frames: T, number of frames of a clip.
        sampling: sampling of the clips.
        max_gap: largest difference of the times of two successive frames of a track; None: unlimited.
    """

    def __init__(
        self,
        embed: Callable[[Sequence[Tensor]], Tensor],
        frames: int,
        sampling: str,
        max_gap: float | None = None,
    ) -> None:
        self._embed, self._frames, self._dense = embed, frames, sampling == "dense"
        self.max_gap = None if max_gap is None else _checks.real("max_gap", max_gap, 0)
        self._lock = threading.Lock()
        self._tracks: dict[Hashable, _Track] = {}

    def ids(self) -> list[Hashable]:
        with self._lock:
            return [key for key, track in self._tracks.items() if track.count]

    def update(self, track_id: Hashable, image: Tensor, time: float | None) -> None:
        if time is not None:
            time = _checks.real("time", time)
        elif self.max_gap is not None:
            raise ValueError("time: expected the time of the frame, because max_gap is set, got None")
        while True:
            with self._lock:
                track = self._tracks.setdefault(track_id, _Track())
            with track.lock:
                if not track.finished:  # otherwise finish() was faster, and the frame starts a new track
                    self._add(track_id, track, image, time)
                    return

    def feature(self, track_id: Hashable) -> Tensor:
        with self._lock:
            track = self._tracks.get(track_id)
        if track is None:
            raise self._unknown(track_id)
        with track.lock:
            return self._feature(track_id, track)

    def finish(self, track_id: Hashable) -> Tensor:
        with self._lock:
            track = self._tracks.get(track_id)
        if track is None:
            raise self._unknown(track_id)
        with track.lock:
            feature = self._feature(track_id, track)
            track.finished = True
            with self._lock:
                del self._tracks[track_id]
        return feature

    def clear(self) -> None:
        with self._lock:
            self._tracks.clear()

    def _add(self, track_id: Hashable, track: _Track, image: Tensor, time: float | None) -> None:
        if time is not None and not math.isnan(track.time):
            if time <= track.time:
                raise ValueError(
                    f"time: expected a time after that of the last frame of track {track_id!r}, "
                    f"{track.time:g}, got {time:g}"
                )
            if self.max_gap is not None and time - track.time > self.max_gap:
                raise ValueError(
                    f"track_id: expected a frame of track {track_id!r} at most max_gap={self.max_gap:g} "
                    f"after its last one at {track.time:g}, got one at {time:g}; call finish({track_id!r}) "
                    "first if the tracker has reused the id"
                )
        images = [*track.images, image]
        if self._dense and len(images) == self._frames:
            feature = self._embed(images)
            track.total = feature if track.total is None else track.total + feature
            track.clips += 1
            images = []
        track.images, track.feature = images, None
        track.count += 1
        track.time = track.time if time is None else time

    def _feature(self, track_id: Hashable, track: _Track) -> Tensor:
        if not track.count or track.finished:
            raise self._unknown(track_id)
        if track.feature is None:
            total, clips = track.total, track.clips
            if track.images:
                last = self._embed(track.images)
                total, clips = last if total is None else total + last, clips + 1
            assert total is not None
            track.feature = total / clips
        return track.feature.clone()

    def _unknown(self, track_id: Hashable) -> ValueError:
        count = len(self.ids())
        return ValueError(f"track_id: expected one of {count} tracks that have frames, got {track_id!r}")
