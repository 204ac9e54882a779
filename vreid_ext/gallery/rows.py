"""Tracklets of a gallery: as users see them (`Record`), and as stores keep them (`Row`)."""

import json
from datetime import datetime
from typing import NamedTuple

from vreid_ext.gallery.times import moment


class Record(NamedTuple):
    """One tracklet of a gallery. None: unknown.

    Attributes:
        name: unique in the gallery.
        person: name of the person.
        camera: name of the camera.
        start, end: times of the first and the last frame, in UTC.
        frames: number of frames.
        pictures: image files of some frames, in temporal order; may be empty.
        added: when the tracklet was added.
    """

    name: str
    person: str | None
    camera: str | None
    start: datetime | None
    end: datetime | None
    frames: int | None
    pictures: tuple[str, ...]
    added: datetime | None

    def as_json(self) -> dict[str, object]:
        """The record with times as text in ISO 8601."""
        times = {key: value.isoformat() for key in ("start", "end", "added") if (value := getattr(self, key))}
        return {**self._asdict(), "start": None, "end": None, **times, "pictures": list(self.pictures)}


class Row(NamedTuple):
    """The columns of a tracklet beside its feature: text, and integers of 64 bits.

    Unknown values are "", 0 or `times.UNKNOWN`, so that all stores compare them alike. `pictures` is JSON.
    """

    name: str
    person: str
    camera: str
    start: int
    end: int
    frames: int
    added: int
    pictures: str

    def record(self) -> Record:
        return Record(
            self.name,
            self.person or None,
            self.camera or None,
            moment(self.start),
            moment(self.end),
            self.frames or None,
            tuple(json.loads(self.pictures)),
            moment(self.added),
        )


TEXT = ("name", "person", "camera", "pictures")
COLUMNS = Row._fields
