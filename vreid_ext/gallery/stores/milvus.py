"""Milvus through pymilvus: Milvus Lite in this process for a file, a server or a cluster for an address.

A gallery NAME is the collection NAME_tracklets. Its description is the only row of NAME_about, because
Milvus Lite keeps no descriptions of collections. A write is one insert. Exhaustive searches need the FLAT
index, which `create` chooses; there is no approximate one, because a collection has one index per vector.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from vreid_ext._lock import one_writer
from vreid_ext.gallery.filters import And, Compare, Condition, In, Or
from vreid_ext.gallery.rows import COLUMNS, TEXT, Row
from vreid_ext.gallery.stores import Candidates, Location, StoreError, none_at, one_at, one_line

_METRICS = {"cosine": "COSINE", "euclidean": "L2"}
_LONGEST = 65_535  # bytes of a text column
PIECE = 1000  # Milvus limits the bytes of an answer


# Milvus Lite lacks a method that the iterator of pymilvus does not need; both report it as an error.
for _logger in ("grpc._server", "pymilvus.client.iterator.query_iterator"):
    logging.getLogger(_logger).addFilter(
        lambda record: (
            not record.getMessage().endswith(("Method not implemented!", "use client-side ts instead"))
        )
    )


def create(location: Location, about: dict[str, Any]) -> "MilvusStore":
    with _errors(location), _writer(location):
        client = MilvusClient(uri=location.address)
        if _about(client, location) is not None:
            raise one_at(location)
        for name in (_collection(location), _description(location)):
            client.drop_collection(name)  # left by a process that died here
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for name in COLUMNS:
            options: dict[str, Any] = {"max_length": _LONGEST} if name in TEXT else {}
            kind = DataType.VARCHAR if name in TEXT else DataType.INT64
            schema.add_field(name, kind, is_primary=name == "name", **options)
        schema.add_field("feature", DataType.FLOAT_VECTOR, dim=about["dimensions"])
        index = client.prepare_index_params()
        index.add_index("feature", index_type="FLAT", metric_type=_METRICS[about["metric"]])
        client.create_collection(
            _collection(location), schema=schema, index_params=index, consistency_level="Strong"
        )
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("about", DataType.VARCHAR, is_primary=True, max_length=_LONGEST)
        schema.add_field("none", DataType.FLOAT_VECTOR, dim=2)  # a collection needs a vector
        index = client.prepare_index_params()
        index.add_index("none", index_type="FLAT", metric_type="L2")
        client.create_collection(
            _description(location), schema=schema, index_params=index, consistency_level="Strong"
        )
        client.insert(_description(location), [{"about": json.dumps(about), "none": [0.0, 0.0]}])
        return MilvusStore(location, client)


def open(location: Location) -> "MilvusStore":
    with _errors(location):
        return MilvusStore(location, MilvusClient(uri=location.address))


class MilvusStore:
    most = 16_384  # Milvus limits the candidates of a search

    def __init__(self, location: Location, client: MilvusClient) -> None:
        self._location, self._client, self._name = location, client, _collection(location)
        about = _about(client, location)
        if about is None:
            raise none_at(location)
        self.about = about
        client.load_collection(self._name)
        self.versions = f"Milvus {client.get_server_version()}"

    def writing(self) -> AbstractContextManager[None]:
        return _writer(self._location)

    def add(self, rows: Sequence[Row], features: np.ndarray) -> None:
        data = [{**row._asdict(), "feature": feature} for row, feature in zip(rows, features)]
        with _errors(self._location):
            self._client.insert(self._name, data)

    def remove(self, where: Condition) -> int:
        with _errors(self._location):
            count = self.count(where)
            if count:
                self._client.delete(self._name, filter=_expression(where))
            return count

    def count(self, where: Condition | None) -> int:
        with _errors(self._location):
            found = self._client.query(self._name, filter=_filter(where), output_fields=["count(*)"])
            return int(found[0]["count(*)"])

    def rows(self, where: Condition | None) -> Iterator[list[Row]]:
        for piece in self._read(where, COLUMNS):
            yield [_row(each) for each in piece]

    def pieces(self, where: Condition | None) -> Iterator[tuple[list[Row], np.ndarray]]:
        for piece in self._read(where, (*COLUMNS, "feature")):
            features = np.array([each["feature"] for each in piece], np.float32)
            yield [_row(each) for each in piece], features

    def nearest(
        self, query: np.ndarray, count: int, where: Condition | None, *, exhaustive: bool
    ) -> Candidates:
        with _errors(self._location):
            (found,) = self._client.search(
                self._name, data=[query.tolist()], filter=_filter(where), limit=count,
                output_fields=[*COLUMNS, "feature"], anns_field="feature",
            )  # fmt: skip
        rows = [_row(each["entity"]) for each in found]
        features = np.array([each["entity"]["feature"] for each in found], np.float32)
        scores = np.array([each["distance"] for each in found], np.float64)
        distances = 1 - scores if self.about["metric"] == "cosine" else scores
        return Candidates(rows, features.reshape(len(rows), self.about["dimensions"]), distances)

    def optimize(self) -> str:
        with _errors(self._location):
            self._client.compact(self._name)
        return "compacted; Milvus searches exhaustively (FLAT)"

    def _read(self, where: Condition | None, fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        with _errors(self._location):
            iterator = self._client.query_iterator(
                self._name, batch_size=PIECE, filter=_filter(where), output_fields=list(fields)
            )
            while found := iterator.next():
                yield found
            iterator.close()


def _filter(where: Condition | None) -> str:
    return "" if where is None else _expression(where)


def _expression(condition: Condition) -> str:
    """Milvus Lite has no parameters, so values are literals of the expression language, as in JSON."""
    match condition:
        case Compare(column, operator, value):
            return f"{column} {'==' if operator == '=' else operator} {_literal(value)}"
        case In(column, values):
            return f"{column} in [{', '.join(map(_literal, values))}]"
        case And(parts):
            return f"({' and '.join(map(_expression, parts))})"
        case Or(parts):
            return f"({' or '.join(map(_expression, parts))})"


def _literal(value: str | int) -> str:
    return json.dumps(value, ensure_ascii=False)


def _row(entity: Any) -> Row:
    return Row(*(entity[name] for name in COLUMNS))


def _collection(location: Location) -> str:
    return f"{location.name}_tracklets"


def _description(location: Location) -> str:
    return f"{location.name}_about"


def _about(client: MilvusClient, location: Location) -> dict[str, Any] | None:
    """What `create` was called with; None without a gallery."""
    name = _description(location)
    if not client.has_collection(name):
        return None
    client.load_collection(name)
    rows = client.query(name, filter="about != ''", output_fields=["about"])
    return json.loads(rows[0]["about"]) if rows else None


def _writer(location: Location) -> AbstractContextManager[None]:
    """A lock for a file. A server has none: two writers of one name are not detected."""
    return nullcontext() if "://" in location.address else one_writer("index", location.address)


@contextmanager
def _errors(location: Location) -> Iterator[None]:
    """Turn errors of Milvus into `StoreError`, one line."""
    try:
        yield
    except MilvusException as error:
        raise StoreError(f"index: {str(location)!r}: Milvus reports: {one_line(error)}") from error
