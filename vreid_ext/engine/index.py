"""Fills an index of tracklets (`vreid_ext.gallery`) from folders of features, and searches it with them."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vreid_ext.data import DatasetError, Tracklet, build_dataset, sample_clip
from vreid_ext.data.records import SPLITS
from vreid_ext.data.video.boxes import read_rates
from vreid_ext.engine.drift import Drift, Scores, drift
from vreid_ext.engine.features import images_of
from vreid_ext.engine.search import Split, read_split
from vreid_ext.engine.threshold import Threshold, first_difference, model_of_identity
from vreid_ext.gallery import Added, Answer, Gallery
from vreid_ext.gallery.times import microseconds, moment

PICTURES = 8  # files per tracklet that an index keeps
BATCH = 10_000
_FACTS = ("name", "person", "camera", "start", "end", "frames")
_DISTRACTORS = ("mars", "market1501")  # data sets whose pid 0 is not a person


class Facts(NamedTuple):
    """What an index keeps of a tracklet beside its feature; see `gallery.Record`."""

    name: str
    person: str | None
    camera: str | None
    start: str | None = None
    end: str | None = None
    frames: int | None = None
    pictures: tuple[str, ...] = ()


def create_index(location: str | Path, features: str | Path) -> Gallery:
    """Create an empty index for features of the same model, dimension and metric as those of a folder.

    Raises:
        ValueError: there is an index already, or the folder has no features with a metric.
        StoreError: the store cannot be reached.
    """
    split = _open(features, "gallery")
    return Gallery.create(location, _dimensions(split), metric=split.metric, model=_model(split))


def add_features(
    index: Gallery,
    features: str | Path,
    *,
    split: str = "gallery",
    root: str | Path | None = None,
    camera: str | None = None,
    starts: Mapping[str | None, str] | None = None,
    fps: float | None = None,
    facts: str | Path | None = None,
    prefix: str = "",
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Added, list[str]]:
    """Add the tracklets of one split of a feature folder, `batch` at a time.

    A batch is added whole or not at all. After an interruption the same call adds the rest.

    Args:
        split: "gallery" or "query".
        root: folder of the data set, for the pictures and frame numbers; default: that of the extraction.
        camera: name of the camera of all tracklets; default: the camera's folder, or its number.
        starts: camera -> time of frame 0 with a zone; the key None is for all other cameras.
        fps: frames per second; default: those that `vreid tracklets` has written into the data set.
        facts: CSV file with a column `name` and some of person, camera, start, end and frames. Cells that are
            not empty replace the facts of the tracklet of that name.
        prefix: put before each name, to keep names of different days apart.
        batch: number of tracklets per write.
        progress: called with (tracklets written, total).

    Returns:
        The numbers of tracklets, and one sentence for each thing that is missing.

    Raises:
        ValueError: the features are of another model, or an argument is wrong. Nothing is added.
    """
    rows = _open(features, split)
    check_model(index, rows)
    if batch < 1:
        raise ValueError(f"batch: expected at least 1, got {batch}")
    known, notes = _facts_of(rows, root, camera, starts or {}, fps)
    if facts is not None:
        known = _replaced(known, Path(facts))
    known = [each._replace(name=prefix + each.name) for each in known]
    _check_unique(known)
    added = present = 0
    for first in range(0, len(known), batch):
        part = known[first : first + batch]
        names, persons, cameras, begins, ends, frames, pictures = zip(*part)
        done = index.add(
            np.asarray(rows.features[first : first + batch]), names,  # type: ignore[index]
            persons=persons, cameras=cameras, starts=begins, ends=ends, frames=frames, pictures=pictures,
        )  # fmt: skip
        added, present = added + done.added, present + done.present
        if progress is not None:
            progress(first + len(part), len(known))
    return Added(added, present), notes


def search_index(
    index: Gallery,
    query: Split,
    top: int = 10,
    where: str | None = None,
    *,
    exhaustive: bool = True,
    threshold: Threshold | None = None,
) -> tuple[list[dict[str, Any]], list[Drift]]:
    """The nearest tracklets of an index for every query, as `engine.search.search` lists them.

    Args:
        where, exhaustive: see `Gallery.search`.
        threshold: adds an `answer` to each tracklet.

    Returns:
        For each query its name, `exact`, and `nearest`: the records with distances; and what has drifted.

    Raises:
        ValueError: the features or the threshold are of another model than the index, or the filter is wrong.
    """
    check_model(index, query)
    if threshold is not None:
        check_index_threshold(index, threshold)
    names = [_name(query, tracklet["name"]) for tracklet in query.tracklets]
    features = np.asarray(query.features[:])  # type: ignore[index]
    answers = index.search(features, top, where, names=names, exhaustive=exhaustive)
    lists = [_listed(name, answer, threshold) for name, answer in zip(names, answers, strict=True)]
    if threshold is None:
        return lists, []
    best = [entry["nearest"][0]["distance"] for entry in lists if entry["nearest"]]
    found = drift(Scores(best, []), threshold.content["scores"], threshold.content["persons"])
    return lists, [each for each in found if each.drifted]


def read_query(features: str | Path) -> Split:
    """The query split of a feature folder."""
    return _open(features, "query")


def query_named(query: Split, name: str) -> tuple[str, np.ndarray]:
    """Name and feature (D,) of one query tracklet.

    Raises:
        ValueError: there is no such tracklet; the message has similar names.
    """
    names = [_name(query, tracklet["name"]) for tracklet in query.tracklets]
    if name not in names:
        near = get_close_matches(name, names, n=3, cutoff=0.0)
        raise ValueError(f"query: expected a query tracklet, such as {', '.join(near)}, got {name!r}")
    number = names.index(name)
    return name, np.asarray(query.features[number : number + 1])[0]  # type: ignore[index]


def check_model(index: Gallery, split: Split) -> None:
    """Check that features are of the model, metric and dimension of an index.

    Raises:
        ValueError: they are not.
    """
    stored = {"dimensions": index.dimensions, "metric": index.metric, **(index.model or {})}
    facts = {"dimensions": _dimensions(split), "metric": split.metric}
    facts |= {} if index.model is None else _model(split)
    if different := first_difference(facts, stored):
        key, mine, theirs = different
        raise ValueError(
            f"features: expected features of {key} {theirs}, as in the index, got {mine} in "
            f"{str(split.folder)!r}"
        )


def check_index_threshold(index: Gallery, threshold: Threshold) -> None:
    """Check that a threshold is for the features of an index.

    Raises:
        ValueError: it is for another model, metric or dimension, or the index does not state its model.
    """
    if index.model is None:
        raise ValueError("threshold: expected an index that states its model, got one without")
    threshold.check(index.model, index.metric, index.dimensions)


def _open(features: str | Path, split: str) -> Split:
    return read_split(features, split)


def _dimensions(split: Split) -> int:
    return int(split.features.shape[1])  # type: ignore[union-attr]


def _model(split: Split) -> dict[str, Any]:
    assert split.manifest is not None
    return model_of_identity(split.manifest["identity"])


def _listed(name: str, answer: Answer, threshold: Threshold | None) -> dict[str, Any]:
    nearest = [
        {
            **each.record.as_json(),
            "distance": each.distance,
            **({} if threshold is None else {"answer": threshold.answer(each.distance)}),
        }
        for each in answer.found
    ]
    return {"query": name, "exact": answer.exact, "nearest": nearest}


def _facts_of(
    split: Split,
    root: str | Path | None,
    camera: str | None,
    starts: Mapping[str | None, str],
    fps: float | None,
) -> tuple[list[Facts], list[str]]:
    """The facts of every row, from the manifest and, if it is there, the data set."""
    origins = {name: microseconds("start", start) for name, start in starts.items()}
    known = [_labels(split, tracklet) for tracklet in split.tracklets]
    if camera is not None:
        known = [each._replace(camera=camera) for each in known]
    if unused := sorted(set(filter(None, origins)) - {each.camera for each in known}):
        cameras = sorted({each.camera or "unknown" for each in known})
        raise ValueError(f"start: expected one of the cameras {', '.join(cameras)}, got {unused[0]!r}")
    images, base, notes = _images(split, root)
    if images is None:
        if origins:
            raise ValueError(f"start: expected a data set, which has the frame numbers; {notes[0]}")
        return known, notes
    rates = {} if fps is not None or not origins else read_rates(base)
    result = []
    for each, files in zip(known, images, strict=True):
        chosen = sample_clip(len(files), min(PICTURES, len(files)), "evenly").tolist()
        each = each._replace(pictures=tuple(files[i] for i in chosen))
        origin = origins.get(each.camera, origins.get(None))
        if origin is not None:
            rate = fps if fps is not None else rates.get(each.camera or "", rates.get(""))
            start, end = _period(files, origin, rate)
            each = each._replace(start=start, end=end)
        result.append(each)
    return result, notes


def _labels(split: Split, tracklet: Mapping[str, Any]) -> Facts:
    """Name, person, camera and number of frames, as far as the data set knows them."""
    assert split.manifest is not None
    dataset = split.manifest["identity"]["dataset.name"]
    name, pid = _name(split, tracklet["name"]), tracklet["pid"]
    if (
        dataset == "tracklet_folder"
    ):  # person/camera/tracklet or person/tracklet; numbers depend on the folder
        person, *rest = name.split("/")
        camera = rest[0] if len(rest) == 2 else None
        unnamed = camera is not None and re.fullmatch(rf"{re.escape(camera)}-unknown\d{{4,}}", person)
        return Facts(name, None if unnamed else person, camera, frames=tracklet.get("frames"))
    unknown = pid < 0 or (pid == 0 and dataset in _DISTRACTORS)
    return Facts(name, None if unknown else str(pid), str(tracklet["camid"]), frames=tracklet.get("frames"))


def _name(split: Split, name: str) -> str:
    """The name of a tracklet in an index: without the folder of its split, so that it is the same in both."""
    assert split.manifest is not None
    if split.manifest["identity"]["dataset.name"] == "tracklet_folder":
        first, slash, rest = name.partition("/")
        return rest if slash and first in SPLITS else name
    return name


def _images(split: Split, root: str | Path | None) -> tuple[list[tuple[str, ...]] | None, Path, list[str]]:
    """The image files of every row; None, with the reason, if the data set is not there."""
    assert split.manifest is not None
    base = root if root is not None else split.manifest.get("root")
    if base is None:
        return None, Path(), ["no pictures: the features do not state their data set; give --dataset-root"]
    identity = split.manifest["identity"]
    try:
        dataset = build_dataset(identity["dataset.name"], base, **identity["dataset.options"])
    except DatasetError as error:
        if root is not None:
            raise
        return None, Path(), [f"no pictures: the data set cannot be read; give --dataset-root ({error})"]
    found: dict[tuple[str, str], Tracklet] = {
        (each.name, images_of(each)): each for each in (*dataset.query, *dataset.gallery)
    }
    images = []
    for tracklet in split.tracklets:
        match = found.get((tracklet["name"], tracklet["images"]))
        if match is None:
            raise ValueError(
                f"dataset-root: expected the data set of the features, got {str(base)!r} without the "
                f"images of {tracklet['name']!r}"
            )
        images.append(tuple(match.paths))
    return images, Path(base), []


def _period(files: Sequence[str], origin: int, rate: float | None) -> tuple[str, str]:
    """Start and end of a tracklet whose files end in frame numbers."""
    if rate is None or not 0 < rate < float("inf"):
        raise ValueError(
            "fps: expected a number of frames per second, which the data set does not state, "
            f"got {'none' if rate is None else rate}"
        )
    numbers = []
    for file in (files[0], files[-1]):
        match = re.search(r"(\d+)\D*$", Path(file).stem)
        if match is None:
            raise ValueError(f"start: expected image names that end in frame numbers, got {file!r}")
        numbers.append(int(match[1]))
    start, end = (str(moment(origin + round(number / rate * 1e6))) for number in numbers)
    return start, end


def _replaced(known: Sequence[Facts], path: Path) -> list[Facts]:
    by_name = {each.name: each for each in known}
    for line, row in _table(path):
        name = row["name"]
        if name not in by_name:
            near = get_close_matches(name, by_name, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"facts: expected names of tracklets in {path}, line {line}, got {name!r}{hint}")
        given: dict[str, Any] = {key: value for key, value in row.items() if value and key != "name"}
        for key in ("start", "end"):
            if key in given:
                microseconds(f"facts: {path}, line {line}, {key}", given[key])
        if "frames" in given:
            if not re.fullmatch(r"[1-9]\d{0,8}", given["frames"], re.ASCII):
                raise ValueError(
                    f"facts: expected a number of frames in {path}, line {line}, got {given['frames']!r}"
                )
            given["frames"] = int(given["frames"])
        by_name[name] = by_name[name]._replace(**given)
    return list(by_name.values())


def _table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with their line numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            for column in columns:
                if column not in _FACTS:
                    (near,) = get_close_matches(column, _FACTS, n=1, cutoff=0.0)
                    raise ValueError(
                        f"facts: expected the columns {', '.join(_FACTS)} in {path}, got {column!r}; "
                        f"did you mean {near!r}?"
                    )
            if "name" not in columns:
                raise ValueError(
                    f"facts: expected a column 'name' in {path}, got {', '.join(columns) or 'none'}"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(
                        f"facts: expected {len(columns)} cells in {path}, line {reader.line_num}"
                    )
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"facts: expected a CSV file, got {str(path)!r}, which cannot be read: {error}"
        ) from error


def _check_unique(known: Sequence[Facts]) -> None:
    seen = set()
    for each in known:
        if each.name in seen:
            raise ValueError(f"features: expected tracklets with unique names, got {each.name!r} twice")
        seen.add(each.name)
