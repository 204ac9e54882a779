"""`pytest benchmarks/`: each test times its providers in interleaved rounds; a table of all is printed last.

`--rows FILE` also writes the rows as JSON, with the machine and the versions.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from harness import Row, compare, machine, save, show

_rows: list[Row] = []


def pytest_addoption(parser):
    parser.addoption("--rows", type=Path, help="write the rows of the tables to this JSON file")
    parser.addoption("--rounds", type=int, default=15, help="interleaved rounds of each comparison")


@pytest.fixture
def side_by_side(request, benchmark):
    """Compare providers, keep the rows for the last table, and pass ours to pytest-benchmark.

    long: the number of rounds of a slow comparison, without a warm-up. once: see `compare`. memory: the
    result of `peak` for some providers.
    """

    def run(case, providers, group, *, long=None, once=(), memory=None):
        rounds = long or request.config.getoption("--rounds")
        rows = compare(case, providers, rounds, 0 if long else 3, once)
        rows = [replace(row, **(memory or {}).get(row.provider, {})) for row in rows]
        _rows.extend(rows)
        benchmark.group = group
        benchmark.extra_info.update({r.provider: r.per_ours for r in rows})
        benchmark.pedantic(providers["ours"], rounds=1 if long else 3, warmup_rounds=0 if long else 1)
        return {r.provider: r.per_ours for r in rows}

    return run


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    return request.param


def pytest_terminal_summary(terminalreporter, config):
    if not _rows:
        return
    terminalreporter.section("side by side (milliseconds)")
    terminalreporter.write_line(str(machine()))
    terminalreporter.write_line(show(_rows))
    if config.getoption("--rows"):
        save(_rows, config.getoption("--rows"))


def pytest_configure(config):
    torch.manual_seed(0)
