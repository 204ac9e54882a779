"""Where a person was: the tracklets of one person in an index, by time and camera."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from vreid_ext.engine.index import check_index_threshold, check_model, query_named, read_query
from vreid_ext.engine.threshold import NOT, Threshold
from vreid_ext.gallery import Gallery, Record

_LATEST = datetime.max.replace(tzinfo=UTC)


class Sighting(NamedTuple):
    """A tracklet of a timeline.

    Attributes:
        record: the tracklet.
        distance: to the query; None if it was selected by its person.
        answer: of the threshold; None without one.
    """

    record: Record
    distance: float | None = None
    answer: str | None = None


class Stay(NamedTuple):
    """Successive sightings by one camera.

    Attributes:
        camera: its name, None if unknown.
        start, end: of the first and the last sighting.
        sightings: number of them.
    """

    camera: str | None
    start: datetime
    end: datetime
    sightings: int


class Timeline(NamedTuple):
    """Attributes:
    query: what was searched.
    sightings: by time; those of unknown time come last.
    exact: whether all tracklets that meet the filter were compared; None without a comparison.
    notes: one sentence for each thing to know.
    """

    query: str
    sightings: list[Sighting]
    exact: bool | None
    notes: list[str]

    def stays(self) -> list[Stay]:
        """The sightings with a time, merged while the camera stays the same."""
        timed = [each.record for each in self.sightings if each.record.start is not None]
        stays = []
        for camera, group in groupby(timed, key=lambda record: record.camera):
            records = list(group)
            starts, ends = [[getattr(each, key) for each in records] for key in ("start", "end")]
            stays.append(Stay(camera, min(starts), max(ends), len(records)))
        return stays

    def conflicts(self) -> list[tuple[Sighting, Sighting]]:
        """Pairs of sightings by two cameras at the same time."""
        return list(_overlaps([each for each in self.sightings if each.record.start is not None]))


def timeline_of(
    index: Gallery,
    *,
    tracklet: str | None = None,
    person: str | None = None,
    query: str | Path | None = None,
    name: str | None = None,
    top: int = 50,
    where: str | None = None,
    threshold: Threshold | None = None,
    exhaustive: bool = True,
) -> Timeline:
    """The timeline of one person.

    Args:
        tracklet: the query is this tracklet of the index.
        person: all tracklets of this person; nothing is compared.
        query, name: the query is the tracklet `name` of the query split of a feature folder.
        top: number of nearest tracklets; with a threshold, the largest number.
        where: filter, see `vreid_ext.gallery.filters`.
        threshold: keep the tracklets that are the same person or too close to say.
        exhaustive: see `Gallery.search`.

    Raises:
        ValueError: not exactly one query is given, it is not there, or the features or the threshold are of
            another model.
    """
    given = [key for key, value in (("tracklet", tracklet), ("person", person), ("query", query)) if value]
    if len(given) != 1:
        raise ValueError(
            f"query: expected one of tracklet, person and query, got {' and '.join(given) or 'none'}"
        )
    if (query is None) != (name is None):
        raise ValueError("name: expected the name of a tracklet together with a folder of queries")
    if person is not None:
        if threshold is not None:
            raise ValueError("threshold: expected none for a known person, whose tracklets are not compared")
        quoted = person.replace("'", "''")
        records = index.records(f"person = '{quoted}'" + (f" and ({where})" if where else ""))
        return Timeline(f"person {person}", list(map(Sighting, records)), None, _notes(records))
    if threshold is not None:
        check_index_threshold(index, threshold)
    sightings = []
    if tracklet is not None:
        title, feature = tracklet, index.features([tracklet])[0].numpy()
        quoted = tracklet.replace("'", "''")
        sightings = [Sighting(record, 0.0) for record in index.records(f"name = '{quoted}'")]
    else:
        assert query is not None
        assert name is not None
        split = read_query(query)
        check_model(index, split)
        title, feature = query_named(split, name)
    (answer,) = index.search(feature[None], top, where, names=[title], exhaustive=exhaustive)
    for record, distance in answer.found:
        said = None if threshold is None else threshold.answer(distance)
        if said != NOT:
            sightings.append(Sighting(record, distance, said))
    sightings.sort(key=lambda each: (each.record.start or _LATEST, each.record.name))
    notes = _notes([each.record for each in sightings])
    if (
        threshold is not None
        and len(answer.found) == top
        and threshold.answer(answer.found[-1].distance) != NOT
    ):
        notes.append(f"more than {top} tracklets are near enough; the nearest {top} are shown")
    return Timeline(title, sightings, answer.exact, notes)


def _notes(records: Sequence[Record]) -> list[str]:
    untimed = sum(record.start is None for record in records)
    return [f"{untimed} of {len(records)} tracklets have no time"] if untimed else []


def _overlaps(sightings: Sequence[Sighting]) -> Iterator[tuple[Sighting, Sighting]]:
    """`sightings` are ordered by start."""
    open_: list[Sighting] = []
    for each in sightings:
        assert each.record.start is not None
        open_ = [other for other in open_ if other.record.end >= each.record.start]  # type: ignore[operator]
        for other in open_:
            if (
                None not in (each.record.camera, other.record.camera)
                and each.record.camera != other.record.camera
            ):
                yield other, each
        open_.append(each)
