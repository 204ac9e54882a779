"""Stores: the engines that keep the tracklets of a gallery, one file each, behind one protocol.

A location selects the store:

    FOLDER or lancedb:URI                   LanceDB, in this process; URI may be an object store (s3://...)
    postgresql://[USER@]HOST/DATABASE[#NAME]    PostgreSQL with pgvector
    milvus:FILE.db or milvus:http://HOST:19530[#NAME]    Milvus Lite, or a Milvus server or cluster

NAME distinguishes several galleries on one server; the default is vreid.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from vreid_ext.gallery.filters import Condition
from vreid_ext.gallery.rows import Row

# Kind -> module, and the extra of this package that installs its engine.
MODULES = {
    "lancedb": ("lance", "gallery"),
    "postgresql": ("postgres", "gallery-postgresql"),
    "milvus": ("milvus", "gallery-milvus"),
}
LANCE_TABLE = "tracklets.lance"  # the folder of the only table of a LanceDB gallery
PIECE = 16_384  # rows that are read at a time
_DEFAULT_NAME = "vreid"


class StoreError(RuntimeError):
    """A store cannot be reached, or reports an error. The message is one line."""


class Candidates(NamedTuple):
    """Nearest tracklets of one query as a store finds them.

    Attributes:
        rows: at most the number asked for, in any order.
        features: (n,D) float32.
        distances: (n,) squared Euclidean or cosine distances (1 - cosine), in the store's float32 arithmetic.
    """

    rows: list[Row]
    features: np.ndarray
    distances: np.ndarray


class Store(Protocol):
    """An open gallery of one engine. Each call sees all writes that were acknowledged before it.

    Attributes:
        about: what `create` was called with.
        versions: name and version of the engine.
    """

    about: dict[str, Any]
    versions: str

    def writing(self) -> AbstractContextManager[None]:
        """Exclude other writers during the block; `add` and `remove` are called inside."""

    def add(self, rows: Sequence[Row], features: np.ndarray) -> None:
        """Add rows whose names are new: all of them or, after an error or a killed process, none."""

    def remove(self, where: Condition) -> int:
        """Remove rows and return their number."""

    def count(self, where: Condition | None) -> int: ...

    def rows(self, where: Condition | None) -> Iterator[list[Row]]:
        """Rows in any order, in pieces."""

    def pieces(self, where: Condition | None) -> Iterator[tuple[list[Row], np.ndarray]]:
        """Rows with their features in any order, in pieces of at most `PIECE` rows."""

    def nearest(
        self, query: np.ndarray, count: int, where: Condition | None, *, exhaustive: bool
    ) -> Candidates:
        """The nearest rows of a query (D,).

        Args:
            count: at most `most`.
            exhaustive: compare with every row that meets the condition. Otherwise an approximate index may be
                used, if there is one.
        """

    @property
    def most(self) -> int:
        """Largest number of candidates of `nearest`."""

    def optimize(self) -> str:
        """Compact the storage and build an approximate index; returns a description of it."""


class Location(NamedTuple):
    """A parsed location: the module of the store, its address, and the name on a server."""

    kind: str
    address: str
    name: str

    def __str__(self) -> str:
        """The location without a password."""
        return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1@", self.address)


def parse_location(location: str | Path) -> Location:
    """Split a location into store, address and name.

    Raises:
        ValueError: unknown store, or the name is not a lower-case identifier.
    """
    text = str(location)
    if re.match(r"postgres(ql)?://", text):
        return Location("postgresql", *_named(text))
    kind, colon, address = text.partition(":")
    if colon and kind == "milvus":
        return Location("milvus", *_named(address))
    if colon and kind == "lancedb":
        return Location("lancedb", address, _DEFAULT_NAME)
    if re.match(r"[a-z][a-z0-9+]+://", text):
        raise ValueError(
            "index: expected a folder, lancedb:URI, postgresql://HOST/DATABASE or milvus:ADDRESS, "
            f"got {text!r}"
        )
    return Location("lancedb", text, _DEFAULT_NAME)


def is_index(location: str) -> bool:
    """Whether a location is the address of a store, or a folder with a gallery; does not open it."""
    parsed = parse_location(location)
    return str(parsed.address) != location or "://" in location or (Path(location) / LANCE_TABLE).is_dir()


def create_store(location: Location, about: dict[str, Any]) -> Store:
    """Create an empty store.

    Args:
        about: description of the gallery, kept in the store; has "dimensions" and "metric".

    Raises:
        ValueError: there is one already.
        StoreError: the store cannot be reached.
        ModuleNotFoundError: the engine is not installed.
    """
    store: Store = _module(location).create(location, about)
    return store


def open_store(location: Location) -> Store:
    """Open an existing store.

    Raises:
        ValueError: there is none.
        StoreError: the store cannot be reached.
        ModuleNotFoundError: the engine is not installed.
    """
    store: Store = _module(location).open(location)
    return store


def none_at(location: Location) -> ValueError:
    return ValueError(
        f"index: expected an index, got {str(location)!r}, which has none; create it with "
        "`vreid index create`"
    )


def one_at(location: Location) -> ValueError:
    return ValueError(f"index: expected a new index, got {str(location)!r}, which has one")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _module(location: Location) -> Any:
    module, extra = MODULES[location.kind]
    try:
        return import_module(f"vreid_ext.gallery.stores.{module}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"index: {error.name} is not installed: pip install 'vreid-ext[{extra}]'", name=error.name
        ) from error


def _named(text: str) -> tuple[str, str]:
    address, hash_sign, name = text.partition("#")
    if hash_sign and not re.fullmatch(r"[a-z_][a-z0-9_]{0,39}", name):
        raise ValueError(
            f"index: expected a name of lower-case letters, digits and _ after #, got {name!r:.60}"
        )
    return address, name or _DEFAULT_NAME
