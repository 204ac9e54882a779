"""The table of ops and backends: what it says is so, and what other packages add to it."""

import sys
import threading
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import torch

from vreid_ext import backends, ops, use_backend
from vreid_ext.backends import reference, table

# Families that need no GPU and no Triton to be imported.
IMPORTABLE = ["reference", "native", "cuda"]


@pytest.mark.parametrize("backend", IMPORTABLE)
@pytest.mark.parametrize("op", table.OPS)
def test_a_backend_has_the_functions_that_the_table_lists(backend, op):
    if backend == "cuda":
        pytest.importorskip("vreid_ext._cuda")
    module = backends.load(backend).__name__ + "." + table.OPS[op].family
    if table.has(backend, op):
        assert table.function(backend, op).__module__ == module
    else:
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            table.function(backend, op)


def test_the_reference_package_shows_every_op():
    assert sorted(reference.__all__) == sorted(table.OPS)


@pytest.fixture
def doubling(monkeypatch):
    """A backend of another package, which has one op."""
    module = ModuleType("doubling")
    module.unavailable = lambda device, dtype: None if device.type == "cpu" else "runs on a CPU only"
    module.attention_map = lambda x, energy, normalize: (x.sum(2), x.sum((2, 3, 4)))
    monkeypatch.setitem(sys.modules, "doubling", module)
    caches = (table.names, table.load, table.function, table._others, backends._resolve)

    def forget():
        for cached in caches:
            cached.cache_clear()

    point = EntryPoint("doubling", "doubling", "vreid_ext.backends")
    monkeypatch.setattr(table, "entry_points", lambda group: [point] * (group == "vreid_ext.backends"))
    forget()
    yield
    monkeypatch.undo()
    forget()


def test_a_backend_of_another_package(doubling):
    assert backends.names() == ("reference", "native", "triton", "cuda", "doubling")
    x = torch.rand(1, 2, 3, 4, 2)
    assert ops.attention_map(x, backend="doubling").equal(x.sum(2))
    with use_backend("doubling"):
        assert ops.attention_map(x).equal(x.sum(2))
        with pytest.raises(RuntimeError, match="doubling: it has no kernel for block_scores"):
            ops.block_scores(torch.rand(1, 2, 4, 2), 2)
    assert not ops.attention_map(x).equal(x.sum(2))  # "auto" keeps to the backends of this package


def test_another_thread_keeps_its_own_backend():
    seen = []

    def resolved():
        seen.append(backends.choose("sta_pool", "auto", torch.device("cpu"), torch.float32))

    with use_backend("reference"):
        thread = threading.Thread(target=resolved)
        thread.start()
        thread.join()
        resolved()
    assert seen == ["native", "reference"]


def test_a_compiled_function_follows_the_backend():
    x = torch.rand(1, 2, 3, 4, 2)
    compiled = torch.compile(lambda x: ops.attention_map(x), fullgraph=True, backend="eager")
    expected = ops.attention_map(x)
    assert compiled(x).equal(expected)
    with use_backend("reference"):
        assert compiled(x).allclose(expected)
