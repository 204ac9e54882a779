"""The page of a timeline: where a person was, with pictures. It works without a server or a network."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from vreid_ext._files import whole_file
from vreid_ext._lock import one_writer
from vreid_ext.data import Tracklet
from vreid_ext.engine.threshold import Threshold
from vreid_ext.engine.timeline import Sighting, Timeline, timeline_of
from vreid_ext.gallery import Gallery
from vreid_ext.report.strips import CELL, strip_frames, strip_name, write_strips
from vreid_ext.report.templates import template

_STEPS = [
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
]  # seconds
_TICKS = 8


class Bar(NamedTuple):
    """A sighting on the lane of its camera; places are fractions of the width of the drawing."""

    number: int
    lane: int
    left: float
    width: float
    label: str


def report_timeline(
    index: Gallery, page: str | Path, *, zone: str = "UTC", threshold: Threshold | None = None, **options: Any
) -> dict[str, Any]:
    """Write the page NAME.html of a timeline and its pictures in NAME_files.

    Args:
        zone: time zone of the page, such as "Europe/Berlin".
        threshold, options: see `engine.timeline.timeline_of`.

    Returns:
        page, query, exact, notes, and the sightings as JSON with distance and answer.

    Raises:
        ValueError: unknown zone, the page does not end in .html, or as in `timeline_of`. Nothing is written.
        InUseError: another process is writing to the page.
    """
    page = Path(page)
    if page.suffix.lower() != ".html":
        raise ValueError(f"out: expected a name that ends in .html, got {str(page)!r}")
    try:
        local = ZoneInfo(zone)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"zone: expected a time zone such as Europe/Berlin, got {zone!r}") from error
    found = timeline_of(index, threshold=threshold, **options)
    with one_writer("out", page):
        _write(page, found, index, local, zone, threshold)
    sightings = [
        {**each.record.as_json(), "distance": each.distance, "answer": each.answer}
        for each in found.sightings
    ]
    conflicts = [[one.record.name, other.record.name] for one, other in found.conflicts()]
    return {
        "page": str(page), "query": found.query, "exact": found.exact, "notes": found.notes,
        "sightings": sightings, "conflicts": conflicts,
    }  # fmt: skip


def _write(
    page: Path, found: Timeline, index: Gallery, zone: tzinfo, zone_name: str, threshold: Threshold | None
) -> None:
    files = page.with_name(f"{page.stem}_files")
    pictured = {number: item for number, each in enumerate(found.sightings) if (item := _pictures(each))}
    write_strips(pictured.values(), files)
    content = template("timeline.html", moment=lambda value: _moment(value, zone), duration=_duration).render(
        found=found,
        index=index,
        zone=zone_name,
        threshold=threshold,
        strips={number: f"{files.name}/{strip_name(item)}" for number, item in pictured.items()},
        frames={number: strip_frames(item) for number, item in pictured.items()},
        cell=CELL,
        drawing=_drawing(found.sightings, zone),
        stays=found.stays(),
        conflicts=found.conflicts(),
        written=_moment(datetime.now(zone), zone),
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(page) as temporary:
        temporary.write_text(content, encoding="utf-8", errors="replace")


def _pictures(sighting: Sighting) -> Tracklet | None:
    """The pictures of a sighting that still exist."""
    paths = tuple(path for path in sighting.record.pictures if Path(path).is_file())
    return Tracklet(paths, 0, 0, sighting.record.name) if paths else None


def _drawing(sightings: Sequence[Sighting], zone: tzinfo) -> dict[str, Any] | None:
    """Lanes, bars and ticks of the drawing; None if no sighting has a time."""
    timed = [(number, each.record) for number, each in enumerate(sightings) if each.record.start]
    if not timed:
        return None
    first = min(record.start for _, record in timed)  # type: ignore[type-var]
    last = max(record.end for _, record in timed)  # type: ignore[type-var]
    span = max((last - first).total_seconds(), 1.0)  # type: ignore[operator]

    def place(moment: datetime) -> float:
        return (moment - first).total_seconds() / span  # type: ignore[operator]

    cameras = sorted({record.camera or "unknown camera" for _, record in timed})
    bars = [
        Bar(
            number,
            cameras.index(record.camera or "unknown camera"),
            place(record.start),  # type: ignore[arg-type]
            place(record.end) - place(record.start),  # type: ignore[arg-type]
            record.name,
        )
        for number, record in timed
    ]
    ticks = [(place(tick), _tick(tick, zone, span)) for tick in _ticks(first, last, zone)]  # type: ignore[arg-type]
    return {"cameras": cameras, "bars": bars, "ticks": ticks}


def _ticks(first: datetime, last: datetime, zone: tzinfo) -> list[datetime]:
    """Round moments of the zone's clock between two moments."""
    span = (last - first).total_seconds()
    step = next((step for step in _STEPS if span / step <= _TICKS), None)
    step = step or _STEPS[-1] * (1 + int(span / _STEPS[-1] / _TICKS))
    midnight = first.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    number = -(-(first - midnight).total_seconds() // step)
    ticks = []
    while (tick := midnight + timedelta(seconds=number * step)) <= last:
        ticks.append(tick)
        number += 1
    return ticks


def _tick(tick: datetime, zone: tzinfo, span: float) -> str:
    local = tick.astimezone(zone)
    return local.strftime("%Y-%m-%d" if span > 4 * 86400 else "%d %b %H:%M" if span > 86400 else "%H:%M:%S")


def _moment(value: datetime, zone: tzinfo) -> str:
    return value.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def _duration(value: timedelta) -> str:
    """A duration as text, such as 1 h 05 min or 4.2 s."""
    seconds = value.total_seconds()
    sign = "−" if seconds < 0 else ""
    seconds = abs(seconds)
    if seconds < 60:
        return f"{sign}{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours} h {minutes:02} min" if hours else f"{sign}{minutes} min {rest:02} s"
