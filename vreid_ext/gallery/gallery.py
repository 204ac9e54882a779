"""`Gallery`: tracklets with features, person, camera and time, kept by a store and searched with filters."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vreid_ext import _checks, ops
from vreid_ext.gallery import filters
from vreid_ext.gallery.filters import Condition, In
from vreid_ext.gallery.rows import Record, Row
from vreid_ext.gallery.stores import PIECE, Candidates, create_store, open_store, parse_location
from vreid_ext.gallery.times import UNKNOWN, microseconds, moment, now

FORMAT = 1
_MANY = 16  # queries from which one pass over all features is faster than a search for each
_LONGEST = 1e15  # norm of a feature
_SPARE = 16  # candidates beyond those asked for, so that rounding rarely needs a second search


class Found(NamedTuple):
    """A tracklet of an answer.

    Attributes:
        record: the tracklet.
        distance: its distance to the query, `ops.pair_distances`.
    """

    record: Record
    distance: float


class Answer(NamedTuple):
    """The nearest tracklets of one query.

    Attributes:
        found: nearest first; equal distances are ordered by name.
        exact: all tracklets that meet the filter were compared, and no rounding error can have changed the
            list.
    """

    found: list[Found]
    exact: bool


class Added(NamedTuple):
    """Result of `Gallery.add`: numbers of tracklets that were added, and that were there before."""

    added: int
    present: int


class Gallery:
    """An index of tracklets that persists, grows, and is searched with filters.

    The tracklets are kept by an existing engine (`vreid_ext.gallery.stores`). Several processes may read
    while one writes (Milvus Lite: one process only).
    A call that has returned is durable against the death of the process.

    Args:
        location: a folder (LanceDB), `lancedb:URI`, `postgresql://HOST/DATABASE[#NAME]`, `milvus:FILE.db` or
            `milvus:http://HOST:19530[#NAME]`.

    Attributes:
        dimensions: D of the features.
        metric: "cosine" or "euclidean".
        model: what determines the features (`engine.threshold.model_of_identity`), None if not stated.

    Raises:
        ValueError: there is no gallery, or it has a newer format.
        StoreError: the store cannot be reached.
        ModuleNotFoundError: its engine is not installed.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = parse_location(location)
        self._store = open_store(self.location)
        self._about = self._store.about
        if self._about.get("format") != FORMAT:
            raise ValueError(
                f"index: expected format {FORMAT}, got {self._about.get('format')!r} in "
                f"{str(self.location)!r}; "
                "it was written by another version of vreid_ext"
            )
        self.dimensions: int = self._about["dimensions"]
        self.metric: str = self._about["metric"]
        self.model: dict[str, Any] | None = self._about["model"]

    @classmethod
    def create(
        cls,
        location: str | Path,
        dimensions: int,
        *,
        metric: str = "cosine",
        model: Mapping[str, Any] | None = None,
    ) -> "Gallery":
        """Create an empty gallery.

        Args:
            location: see `Gallery`; the folder must be new or empty.
            dimensions: D of the features.
            metric: "cosine" or "euclidean".
            model: JSON-like description of the model, which later features must share.

        Raises:
            ValueError: there is a gallery already, or an argument has a wrong value.
        """
        dimensions = _checks.integer("dimensions", dimensions, 1)
        _checks.choice("metric", metric, ("cosine", "euclidean"))
        about = {
            "format": FORMAT,
            "dimensions": dimensions,
            "metric": metric,
            "model": None if model is None else json.loads(json.dumps(dict(model))),
            "created": str(moment(now())),
        }
        create_store(parse_location(location), about)
        return cls(location)

    def __repr__(self) -> str:
        return f"Gallery({str(self.location)!r}, {len(self)} tracklets x {self.dimensions}, {self.metric})"

    def __len__(self) -> int:
        return self._store.count(None)

    def count(self, where: str | None = None) -> int:
        """Number of tracklets that meet a filter."""
        return self._store.count(_condition(where))

    def add(
        self,
        features: Any,
        names: Sequence[str],
        *,
        persons: Sequence[str | None] | None = None,
        cameras: Sequence[str | int | None] | None = None,
        starts: Sequence[str | datetime | None] | None = None,
        ends: Sequence[str | datetime | None] | None = None,
        frames: Sequence[int | None] | None = None,
        pictures: Sequence[Sequence[str]] | None = None,
    ) -> Added:
        """Add tracklets: all of them or, after an error or if the process is killed, none.

        A tracklet that is there already, with the same feature and facts, is counted and left as it is, so
        the same call may be repeated.

        Args:
            features: (n,D), finite.
            names: unique names of the tracklets.
            persons, cameras: names; None: unknown.
            starts, ends: times of the first and last frame, with a zone. A tracklet has both or neither.
            frames: numbers of frames.
            pictures: files of some frames of each tracklet, in temporal order.

        Raises:
            TypeError, ValueError: an argument has a wrong type or value, or a name is taken by another
                tracklet. Nothing is added.
            InUseError: another process is writing.
            StoreError: the store reports an error.
        """
        values = self._features("features", features)
        rows = _rows(len(values), names, persons, cameras, starts, ends, frames, pictures)
        if not rows:
            return Added(0, 0)
        with self._store.writing():
            present = {row.name: (row, feature) for row, feature in self._named([row.name for row in rows])}
            fresh = []
            for number, row in enumerate(rows):
                if row.name not in present:
                    fresh.append(number)
                elif difference := _difference(row, values[number], *present[row.name]):
                    raise ValueError(
                        f"names: expected new tracklets, got {row.name!r}, which the index has with another "
                        f"{difference}; remove it first or choose another name"
                    )
            if fresh:
                self._store.add([rows[number] for number in fresh], values[fresh])
        return Added(len(fresh), len(present))

    def remove(self, where: str) -> int:
        """Remove the tracklets that meet a filter, and return their number.

        Raises:
            ValueError: the filter has an error. Nothing is removed.
        """
        condition = filters.parse(where)
        with self._store.writing():
            return self._store.remove(condition)

    def records(self, where: str | None = None) -> list[Record]:
        """The tracklets that meet a filter, ordered by start and name."""
        rows = [row for piece in self._store.rows(_condition(where)) for row in piece]
        rows.sort(key=lambda row: (row.start == UNKNOWN, row.start, row.name))
        return [row.record() for row in rows]

    def features(self, names: Sequence[str]) -> Tensor:
        """The features (n,D) float32 of the tracklets with these names.

        Raises:
            ValueError: a name is not in the gallery.
        """
        found = {row.name: feature for row, feature in self._named(names)}
        if missing := [name for name in names if name not in found]:
            raise ValueError(f"names: expected names of tracklets of the index, got {missing[0]!r}")
        rows = [found[name] for name in names]
        return torch.from_numpy(np.stack(rows) if rows else np.empty((0, self.dimensions), np.float32))

    def search(
        self,
        queries: Any,
        top: int = 10,
        where: str | None = None,
        *,
        names: Sequence[str] | None = None,
        exhaustive: bool = True,
    ) -> list[Answer]:
        """The nearest tracklets of every query among those that meet a filter.

        For a few queries the store proposes candidates by float32 distances, and `ops.pair_distances`
        computes their order; if a rounding error could hide a nearer tracklet behind the last candidate, more
        are requested. Many queries are compared with all features in one pass (`ops.top_k`).

        Args:
            queries: (Q,D).
            top: number of tracklets per query.
            where: filter, see `vreid_ext.gallery.filters`.
            names: names of the queries. A tracklet of the gallery with the name and the feature of a query is
                the query itself, and is not returned.
            exhaustive: compare with every tracklet. Otherwise an index that `optimize` has built may be used;
                the answer is then not exact.

        Raises:
            TypeError, ValueError: an argument has a wrong type or value.
        """
        rows = self._features("queries", queries)
        top = _checks.integer("top", top, 1)
        _checks.flag("exhaustive", exhaustive)
        if names is not None and len(names) != len(rows):
            raise ValueError(f"names: expected {len(rows)}, one for each query, got {len(names)}")
        condition, named = _condition(where), [None] * len(rows) if names is None else names
        if exhaustive and len(rows) >= _MANY:
            return self._scan(rows, top, condition, named)
        return [
            self._nearest(row, top, condition, name, exhaustive)
            for row, name in zip(rows, named, strict=True)
        ]

    def optimize(self) -> str:
        """Compact the storage and build the approximate index of `search(exhaustive=False)`.

        Returns:
            A description of the index.
        """
        with self._store.writing():
            return self._store.optimize()

    def info(self) -> dict[str, Any]:
        """Store, dimension, metric, model, and numbers of tracklets, persons and cameras with their times."""
        cameras: dict[str, _Camera] = {}
        persons: set[str] = set()
        total = without_person = without_time = 0
        for piece in self._store.rows(None):
            total += len(piece)
            persons.update(row.person for row in piece if row.person)
            without_person += sum(not row.person for row in piece)
            without_time += sum(row.start == UNKNOWN for row in piece)
            for row in piece:
                cameras.setdefault(row.camera or "unknown", _Camera()).count(row)
        return {
            "index": str(self.location),
            "store": self._store.versions,
            **{key: self._about[key] for key in ("format", "created", "dimensions", "metric", "model")},
            "tracklets": total,
            "persons": len(persons),
            "without_person": without_person,
            "without_time": without_time,
            "cameras": {name: cameras[name].as_json() for name in sorted(cameras)},
        }

    def _scan(
        self, queries: np.ndarray, top: int, condition: Condition | None, names: Sequence[str | None]
    ) -> list[Answer]:
        """`ops.top_k` over all features that meet the condition, piece by piece."""
        rows = torch.from_numpy(queries)
        best: list[list[tuple[float, str, Row]]] = [[] for _ in queries]
        for piece, features in self._store.pieces(condition):
            # Ordered by name, so that equal distances are too.
            order = sorted(range(len(piece)), key=lambda i: piece[i].name)
            items = torch.from_numpy(features[order])
            distances, places = ops.top_k(rows, items, min(top + 1, len(piece)), self.metric)
            for number, (found, away) in enumerate(zip(places.tolist(), distances.tolist(), strict=True)):
                for distance, i in zip(away, (order[place] for place in found), strict=True):
                    name = piece[i].name
                    if name != names[number] or not np.array_equal(features[i], queries[number]):
                        best[number].append((distance, name, piece[i]))
                best[number].sort(key=lambda each: each[:2])
                del best[number][top:]
        return [Answer([Found(row.record(), d) for d, _, row in each], exact=True) for each in best]

    def _nearest(
        self, query: np.ndarray, top: int, condition: Condition | None, name: str | None, exhaustive: bool
    ) -> Answer:
        count = top + _SPARE
        while True:
            count = min(count, self._store.most)
            candidates = self._store.nearest(query, count, condition, exhaustive=exhaustive)
            order, distances = self._rescored(query, candidates, name)
            sure = len(candidates.rows) < count or (
                len(order) >= top and self._is_sure(query, distances[order[top - 1]], candidates.distances)
            )
            if sure or not exhaustive or count == self._store.most:
                found = [Found(candidates.rows[i].record(), float(distances[i])) for i in order[:top]]
                return Answer(found, exact=exhaustive and sure)
            count *= 4

    def _rescored(
        self, query: np.ndarray, candidates: Candidates, name: str | None
    ) -> tuple[list[int], np.ndarray]:
        """Order of the candidates without the query itself, and the float64 distances of all."""
        index = torch.arange(len(candidates.rows), device="cpu")
        one, items = torch.from_numpy(query[None]), torch.from_numpy(np.array(candidates.features))
        distances = (
            ops.pair_distances(one, items, torch.zeros_like(index), index, self.metric).numpy()
            if len(index)
            else np.empty(0)
        )
        itself = [
            row.name == name and np.array_equal(feature, query)
            for row, feature in zip(candidates.rows, candidates.features)
        ]
        order = sorted(
            (i for i in range(len(distances)) if not itself[i]),
            key=lambda i: (distances[i], candidates.rows[i].name),
        )
        return order, distances

    def _is_sure(self, query: np.ndarray, last: float, proposed: np.ndarray) -> bool:
        """Whether an item that was not proposed must be farther than `last`, whatever the rounding errors.

        A sum of D float32 products has a relative error below (D + 16) 2^-24 of the sum of their absolute
        values, which is at most (|q| + |g|)^2, and |g| <= |q| + last for the items in question.
        """
        rounding = (self.dimensions + 16) * 2.0**-24
        if self.metric == "cosine":
            return bool(proposed.max() - last > 2 * rounding)
        reach = 2 * float(np.linalg.norm(query.astype(np.float64))) + last
        return bool(float(proposed.max()) - last**2 > rounding * reach**2)

    def _named(self, names: Sequence[str]) -> Iterator[tuple[Row, np.ndarray]]:
        for first in range(0, len(names), PIECE):
            for rows, features in self._store.pieces(In("name", tuple(names[first : first + PIECE]))):
                yield from zip(rows, features)

    def _features(self, name: str, features: Any) -> np.ndarray:
        value = _checks.array(name, features).detach().cpu()
        if value.dim() != 2 or value.shape[1] != self.dimensions:
            raise ValueError(
                f"{name}: expected shape (n,{self.dimensions}) as in the index, got {tuple(value.shape)}"
            )
        rows = np.ascontiguousarray(value.to(torch.float32).numpy())
        if not np.isfinite(rows).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        # Beyond these lengths the squares of float32 numbers overflow or, with the cosine, vanish.
        if (lengths > _LONGEST).any() or (self.metric == "cosine" and (lengths < 1 / _LONGEST).any()):
            least = f"{1 / _LONGEST:g}" if self.metric == "cosine" else "0"
            wrong = lengths.max() if lengths.max() > _LONGEST else lengths.min()
            raise ValueError(f"{name}: expected rows of a norm from {least} to {_LONGEST:g}, got {wrong:g}")
        return rows


class _Camera:
    """Numbers of one camera for `Gallery.info`."""

    def __init__(self) -> None:
        self.tracklets, self.first, self.last = 0, UNKNOWN, UNKNOWN

    def count(self, row: Row) -> None:
        self.tracklets += 1
        if row.start != UNKNOWN:
            self.first = row.start if self.first == UNKNOWN else min(self.first, row.start)
            self.last = max(self.last, row.end)

    def as_json(self) -> dict[str, Any]:
        first, last = (value and str(value) for value in (moment(self.first), moment(self.last)))
        return {"tracklets": self.tracklets, "first": first, "last": last}


def _condition(where: str | None) -> Condition | None:
    return None if where is None else filters.parse(where)


def _difference(row: Row, feature: np.ndarray, old: Row, old_feature: np.ndarray) -> str:
    """The first fact that differs. Pictures and the time of adding may."""
    for key in ("person", "camera", "start", "end", "frames"):
        if getattr(row, key) != getattr(old, key):
            return key
    return "" if np.array_equal(feature, old_feature) else "feature"


def _rows(
    count: int,
    names: Sequence[str],
    persons: Sequence[str | None] | None,
    cameras: Sequence[str | int | None] | None,
    starts: Sequence[str | datetime | None] | None,
    ends: Sequence[str | datetime | None] | None,
    frames: Sequence[int | None] | None,
    pictures: Sequence[Sequence[str]] | None,
) -> list[Row]:
    given = {
        "names": names, "persons": persons, "cameras": cameras, "starts": starts, "ends": ends,
        "frames": frames, "pictures": pictures,
    }  # fmt: skip
    for key, values in given.items():
        if isinstance(values, str) or (values is not None and len(values) != count):
            got = "text" if isinstance(values, str) else len(values)
            raise ValueError(f"{key}: expected {count}, one for each feature, got {got}")
    added, seen, rows = now(), set(), []
    for number in range(count):
        name, person, camera, start, end, length, files = (
            None if values is None else values[number] for values in given.values()
        )
        row = Row(
            _text("names", name),
            "" if person is None else _text("persons", person),
            "" if camera is None else _text("cameras", str(camera)),
            UNKNOWN if start is None else microseconds("starts", start),  # type: ignore[arg-type]
            UNKNOWN if end is None else microseconds("ends", end),  # type: ignore[arg-type]
            0 if length is None else _checks.integer("frames", length, 1),
            added,
            json.dumps([str(file) for file in files or ()]),  # type: ignore[union-attr]
        )
        if (row.start == UNKNOWN) != (row.end == UNKNOWN) or row.end < row.start:
            raise ValueError(f"ends: expected an end not before the start of {row.name!r}, got {end!s}")
        if row.name in seen:
            raise ValueError(f"names: expected unique names, got {row.name!r} twice")
        seen.add(row.name)
        rows.append(row)
    return rows


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text, got {type(value).__name__}")
    if not 0 < len(value) <= 500 or "\0" in value or not value.isprintable():
        raise ValueError(f"{name}: expected 1 to 500 printable characters, got {value!r:.60}")
    return value
