"""LanceDB: a folder, or an object store, that this process reads and writes; the default store.

A write is one version of the table: it becomes visible with the manifest of the version, all of it or none.
The description of the gallery is in the metadata of the table's schema.
"""

import functools
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.expr import Expr, col, lit
from lancedb.index import BTree, HnswSq

from vreid_ext._lock import one_writer
from vreid_ext.gallery.filters import And, Compare, Condition, In, Or
from vreid_ext.gallery.rows import COLUMNS, TEXT, Row
from vreid_ext.gallery.stores import (
    LANCE_TABLE,
    PIECE,
    Candidates,
    Location,
    StoreError,
    none_at,
    one_at,
    one_line,
)

_TABLE = Path(LANCE_TABLE).stem
_ABOUT = b"vreid_ext"
_METRICS: dict[str, Literal["cosine", "l2"]] = {"cosine": "cosine", "euclidean": "l2"}
_LEAST_INDEXED = 10_000  # rows from which `optimize` builds an approximate index
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def create(location: Location, about: dict[str, Any]) -> "LanceStore":
    folder = _folder(location)
    if folder is not None and folder.is_dir() and any(folder.iterdir()) and not _is_lance(folder):
        raise ValueError(f"index: expected a new or empty folder, got {str(folder)!r} with other files")
    schema = pa.schema(
        [
            *(pa.field(name, pa.string() if name in TEXT else pa.int64()) for name in COLUMNS),
            pa.field("feature", pa.list_(pa.float32(), about["dimensions"])),
        ],
        metadata={_ABOUT: json.dumps(about).encode()},
    )
    with _writer(location), _errors(location):
        database = lancedb.connect(location.address)
        if _TABLE in _tables(database):
            raise one_at(location)
        return LanceStore(location, database.create_table(_TABLE, schema=schema))


def open(location: Location) -> "LanceStore":
    folder = _folder(location)
    if folder is not None and not _is_lance(folder):
        raise none_at(location)  # connect() would create the folder
    with _errors(location):
        database = lancedb.connect(location.address)
        if _TABLE not in _tables(database):
            raise none_at(location)
        return LanceStore(location, database.open_table(_TABLE))


class LanceStore:
    most = 2**31 - 1

    def __init__(self, location: Location, table: Any) -> None:
        self._location, self._table = location, table
        self.versions = f"LanceDB {lancedb.__version__}"
        metadata = table.schema.metadata or {}
        if _ABOUT not in metadata:
            raise none_at(location)
        self.about: dict[str, Any] = json.loads(metadata[_ABOUT])

    def writing(self) -> AbstractContextManager[None]:
        return _writer(self._location)

    def add(self, rows: Sequence[Row], features: np.ndarray) -> None:
        columns = [list(column) for column in zip(*rows)]
        arrays = [
            pa.array(values, pa.string() if name in TEXT else pa.int64())
            for name, values in zip(COLUMNS, columns)
        ]
        flat = pa.array(features.reshape(-1), pa.float32())
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, features.shape[1]))
        with _errors(self._location):
            self._latest().add(pa.table(arrays, names=[*COLUMNS, "feature"]))

    def remove(self, where: Condition) -> int:
        count = self.count(where)
        if count:
            with _errors(self._location):
                self._latest().delete(_expression(where).to_sql())
        return count

    def count(self, where: Condition | None) -> int:
        with _errors(self._location):
            condition = None if where is None else _expression(where).to_sql()
            return int(self._latest().count_rows(condition))

    def rows(self, where: Condition | None) -> Iterator[list[Row]]:
        for batch in self._read(where, COLUMNS):
            yield _rows(batch)

    def pieces(self, where: Condition | None) -> Iterator[tuple[list[Row], np.ndarray]]:
        for batch in self._read(where, (*COLUMNS, "feature")):
            yield _rows(batch), _features(batch)

    def nearest(
        self, query: np.ndarray, count: int, where: Condition | None, *, exhaustive: bool
    ) -> Candidates:
        with _errors(self._location):
            search = self._latest().search(query, vector_column_name="feature")
            search = search.distance_type(_METRICS[self.about["metric"]]).limit(count)
            search = search.select([*COLUMNS, "feature", "_distance"])
            if exhaustive:
                search = search.bypass_vector_index()
            if where is not None:
                search = search.where(_expression(where), prefilter=True)
            found = search.to_arrow()
        return Candidates(_rows(found), _features(found), found["_distance"].to_numpy())

    def optimize(self) -> str:
        with _errors(self._location):
            table = self._latest()
            table.optimize()
            table.create_index("name", config=BTree())
            count = table.count_rows()
            if count < _LEAST_INDEXED:
                return f"compacted; no approximate index below {_LEAST_INDEXED} tracklets"
            table.create_index("feature", config=HnswSq(distance_type=_METRICS[self.about["metric"]]))
            return "compacted; approximate index IVF_HNSW_SQ"

    def _read(self, where: Condition | None, columns: Sequence[str]) -> Iterator[Any]:
        with _errors(self._location):
            query = self._latest().search().select(list(columns))
            query = query if where is None else query.where(_expression(where))
            for batch in query.limit(self._table.count_rows()).to_batches(PIECE):
                if len(batch):
                    yield batch

    def _latest(self) -> Any:
        """The table at its newest version, also if another process has written it."""
        self._table.checkout_latest()
        return self._table


def _expression(condition: Condition) -> Expr:
    match condition:
        case Compare(column, sign, value):
            return _COMPARE[sign](col(column), lit(value))
        case In(column, values):
            return col(column).isin(values)
        case And(parts):
            return functools.reduce(operator.and_, map(_expression, parts))
        case Or(parts):
            return functools.reduce(operator.or_, map(_expression, parts))


def _rows(table: Any) -> list[Row]:
    return list(map(Row._make, zip(*(table.column(name).to_pylist() for name in COLUMNS))))


def _features(table: Any) -> np.ndarray:
    column = table.column("feature")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # without rows
        return np.empty((0, column.type.list_size), np.float32)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)


def _folder(location: Location) -> Path | None:
    return None if "://" in location.address else Path(location.address)


def _is_lance(folder: Path) -> bool:
    return (folder / LANCE_TABLE).is_dir()


def _tables(database: Any) -> list[str]:
    return list(database.list_tables().tables)


def _writer(location: Location) -> AbstractContextManager[None]:
    folder = _folder(location)
    return nullcontext() if folder is None else one_writer("index", folder)


@contextmanager
def _errors(location: Location) -> Iterator[None]:
    """Turn errors of LanceDB into `StoreError`, one line."""
    try:
        yield
    except StoreError:
        raise
    except (RuntimeError, OSError, pa.ArrowException) as error:
        raise StoreError(f"index: {str(location)!r}: LanceDB reports: {one_line(error)}") from error
