"""PostgreSQL with the extension pgvector: a server that many machines read and write.

A gallery NAME is the table NAME_tracklets; its description is in the table vreid_galleries. A write is one
transaction. All values are parameters of the statements.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from vreid_ext.gallery.filters import And, Compare, Condition, In, Or
from vreid_ext.gallery.rows import COLUMNS, TEXT, Row
from vreid_ext.gallery.stores import PIECE, Candidates, Location, StoreError, none_at, one_at, one_line

_DISTANCE = {"cosine": "<=>", "euclidean": "<->"}
_OPERATORS = {"cosine": "vector_cosine_ops", "euclidean": "vector_l2_ops"}
_MOST_INDEXED = 2000  # dimensions of a pgvector index
_CATALOG = "CREATE TABLE IF NOT EXISTS vreid_galleries (name text PRIMARY KEY, about jsonb NOT NULL)"
_LOCK = 0x76726569  # advisory lock of the statements that create


def create(location: Location, about: dict[str, Any]) -> "PostgresStore":
    with _errors(location), _connected(location) as connection:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute(_CATALOG)
            taken = connection.execute("SELECT 1 FROM vreid_galleries WHERE name = %s", [location.name])
            if taken.fetchone():
                raise one_at(location)
            columns = [
                sql.SQL("{} {} NOT NULL").format(
                    sql.Identifier(name), sql.SQL("text" if name in TEXT else "bigint")
                )
                for name in COLUMNS
            ]
            dimensions = sql.Literal(about["dimensions"])
            statement = "CREATE TABLE {} ({}, feature vector({}) NOT NULL, PRIMARY KEY (name))"
            connection.execute(
                sql.SQL(statement).format(_table(location), sql.SQL(", ").join(columns), dimensions)
            )
            # Features have random digits, which compression only slows down.
            storage = "ALTER TABLE {} ALTER COLUMN feature SET STORAGE EXTERNAL"
            connection.execute(sql.SQL(storage).format(_table(location)))
            connection.execute("INSERT INTO vreid_galleries VALUES (%s, %s)", [location.name, Jsonb(about)])
        return PostgresStore(location)


def open(location: Location) -> "PostgresStore":
    with _errors(location):
        return PostgresStore(location)


class PostgresStore:
    most = 2**31 - 1

    def __init__(self, location: Location) -> None:
        self._location, self._table = location, _table(location)
        self._connection = _connect(location)
        weakref.finalize(self, self._connection.close)
        catalog = self._connection.execute("SELECT to_regclass('vreid_galleries')").fetchone()
        row = None
        if catalog and catalog[0]:
            query = "SELECT about FROM vreid_galleries WHERE name = %s"
            row = self._connection.execute(query, [location.name]).fetchone()
        if row is None:
            raise none_at(location)
        register_vector(self._connection)
        self.about: dict[str, Any] = row[0]
        query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        server = self._connection.info.parameter_status("server_version")
        ((extension,),) = self._connection.execute(query)
        self.versions = f"PostgreSQL {server}, pgvector {extension}"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction; readers see its end, other writers wait for it."""
        with _errors(self._location), self._connection.transaction():
            lock = sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(self._table)
            self._connection.execute(lock)
            yield

    def add(self, rows: Sequence[Row], features: np.ndarray) -> None:
        statement = sql.SQL("COPY {} ({}, feature) FROM STDIN WITH (FORMAT BINARY)").format(
            self._table, _columns()
        )
        with _errors(self._location), self._connection.cursor().copy(statement) as copy:
            copy.set_types([*("text" if name in TEXT else "int8" for name in COLUMNS), "vector"])
            for row, feature in zip(rows, features):
                copy.write_row([*row, Vector(feature)])

    def remove(self, where: Condition) -> int:
        condition, values = _condition(where)
        with _errors(self._location):
            statement = sql.SQL("DELETE FROM {} WHERE {}").format(self._table, condition)
            return self._connection.execute(statement, values).rowcount

    def count(self, where: Condition | None) -> int:
        condition, values = _condition(where)
        with _errors(self._location):
            statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self._table, condition)
            ((count,),) = self._connection.execute(statement, values)
            return int(count)

    def rows(self, where: Condition | None) -> Iterator[list[Row]]:
        for found in self._read(where, _columns()):
            yield list(map(Row._make, found))

    def pieces(self, where: Condition | None) -> Iterator[tuple[list[Row], np.ndarray]]:
        for found in self._read(where, sql.SQL("{}, feature").format(_columns())):
            yield self._split(found)

    def nearest(
        self, query: np.ndarray, count: int, where: Condition | None, *, exhaustive: bool
    ) -> Candidates:
        condition, values = _condition(where)
        distance = sql.SQL(f"feature {_DISTANCE[self.about['metric']]} %s")
        statement = sql.SQL(
            "SELECT {}, feature, {} AS distance FROM {} WHERE {} ORDER BY {} LIMIT {}"
        ).format(_columns(), distance, self._table, condition, distance, sql.Literal(count))
        with _errors(self._location), self._connection.transaction():
            if exhaustive:
                self._connection.execute("SET LOCAL enable_indexscan = off")
            else:
                self._connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            cursor = self._connection.cursor(binary=True)
            found = cursor.execute(statement, [Vector(query), *values, Vector(query)]).fetchall()
        distances = np.array([row[-1] for row in found], np.float64)
        if self.about["metric"] == "euclidean":
            distances **= 2
        return Candidates(*self._split([row[:-1] for row in found]), distances)

    def optimize(self) -> str:
        with _errors(self._location):
            self._connection.execute(sql.SQL("ANALYZE {}").format(self._table))
            if self.about["dimensions"] > _MOST_INDEXED:
                return f"analyzed; pgvector has no index for more than {_MOST_INDEXED} dimensions"
            name = sql.Identifier(f"{self._location.name}_feature")
            kind = sql.SQL(_OPERATORS[self.about["metric"]])
            statement = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (feature {})")
            self._connection.execute(statement.format(name, self._table, kind))
            return "analyzed; approximate index HNSW"

    def _read(self, where: Condition | None, columns: sql.Composable) -> Iterator[list[Any]]:
        condition, values = _condition(where)
        statement = sql.SQL("SELECT {} FROM {} WHERE {}").format(columns, self._table, condition)
        with (
            _errors(self._location),
            self._connection.transaction(),
            self._connection.cursor("pieces", binary=True) as cursor,
        ):
            cursor.execute(statement, values)
            while found := cursor.fetchmany(PIECE):
                yield found

    def _split(self, found: Sequence[Sequence[Any]]) -> tuple[list[Row], np.ndarray]:
        """Rows and features of selected rows, whose last column is the feature."""
        features = np.empty((len(found), self.about["dimensions"]), np.float32)
        for number, row in enumerate(found):
            features[number] = row[-1].to_numpy()
        return [Row(*row[:-1]) for row in found], features


def _condition(where: Condition | None) -> tuple[sql.Composable, list[Any]]:
    """A condition as SQL with placeholders, and their values."""
    match where:
        case None:
            return sql.SQL("true"), []
        case Compare(column, operator, value):
            sign = sql.SQL("<>" if operator == "!=" else operator)
            return sql.SQL("{} {} %s").format(sql.Identifier(column), sign), [value]
        case In(column, values):
            return sql.SQL("{} = ANY(%s)").format(sql.Identifier(column)), [list(values)]
        case And(parts) | Or(parts):
            found = list(map(_condition, parts))
            word = sql.SQL(" AND " if isinstance(where, And) else " OR ")
            condition = sql.SQL("({})").format(word.join(each for each, _ in found))
            return condition, [value for _, some in found for value in some]


def _columns() -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, COLUMNS))


def _table(location: Location) -> sql.Identifier:
    return sql.Identifier(f"{location.name}_tracklets")


def _connect(location: Location) -> "psycopg.Connection[Any]":
    return psycopg.connect(location.address, autocommit=True, connect_timeout=10)


@contextmanager
def _connected(location: Location) -> Iterator["psycopg.Connection[Any]"]:
    with _connect(location) as connection:
        yield connection


@contextmanager
def _errors(location: Location) -> Iterator[None]:
    """Turn errors of PostgreSQL into `StoreError`, one line."""
    try:
        yield
    except psycopg.Error as error:
        raise StoreError(f"index: {str(location)!r}: PostgreSQL reports: {one_line(error)}") from error
