"""`pytest benchmarks/`: each test times its baselines in interleaved rounds. Tables are printed at the end.

`--rows FILE` also writes the rows, with machine and versions, as JSON.
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
    parser.addoption("--rounds", type=int, default=15, help="number of interleaved rounds per comparison")
    parser.addoption(
        "--root", type=Path, help="data set in the layout of MARS for the benchmarks of whole steps"
    )


@pytest.fixture
def side_by_side(request, benchmark):
    """Compare providers, collect the rows for the tables, and report ours to pytest-benchmark.

    long: number of rounds for calls that take seconds; there is no warm-up then. once: see `compare`.
    extra: more fields of the rows by provider, such as the results of `peak`.
    """

    def run(case, providers, group, *, long=None, once=(), extra=None):
        rounds = long or request.config.getoption("--rounds")
        rows = compare(case, providers, rounds, 0 if long else 3, once)
        rows = [replace(row, **(extra or {}).get(row.provider, {})) for row in rows]
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
