"""Milvus through pymilvus: Milvus Lite in this process for a file, a server or a cluster for an address.

A gallery NAME is the collection NAME_tracklets; its description is in the description of the collection. A write is
one insert. Exhaustive searches need the FLAT index, which `create` chooses; there is no approximate one, because a
Milvus collection has one index per vector field.
"""

import json
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
_PIECE = 1000


def create(location: Location, about: dict[str, Any]) -> "MilvusStore":
    with _errors(location), _writer(location):
        client = MilvusClient(uri=location.address)
        if client.has_collection(_collection(location)):
            raise one_at(location)
        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=json.dumps(about)
        )
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
        return MilvusStore(location, client)


def open(location: Location) -> "MilvusStore":
    with _errors(location):
        return MilvusStore(location, MilvusClient(uri=location.address))
