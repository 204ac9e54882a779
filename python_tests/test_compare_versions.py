"""`benchmarks/compare.py`: two workers time the package of two folders."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CASE = "losses.TripletLoss step, n = 64, D = 2048"


@pytest.fixture(scope="module")
def compare():
    folder = ROOT / "benchmarks"
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("compare_versions", folder / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def workers(compare):
    both = [compare.Worker(ROOT, 1) for _ in range(2)]
    yield both
    for each in both:
        each.close()


def test_a_case_is_timed_in_both_versions(compare, workers, capsys):
    row = compare.ratio(workers, CASE, rounds=5)
    assert 0 < row.q20 <= row.median <= row.q80
    assert row.base > 0
    assert row.head > 0
    compare.report(workers, [CASE], 3, tolerance=1.0)
    assert CASE in capsys.readouterr().out


def test_a_call_that_one_version_lacks_is_reported(compare, workers, capsys, monkeypatch):
    with pytest.raises(LookupError, match="KeyError"):
        workers[0].time("no such case")
    assert compare.report(workers, ["no such case"], 1, tolerance=0.1) == []
    assert "not in both versions" in capsys.readouterr().out
    assert workers[0].time(CASE) > 0  # the worker goes on


def test_a_slower_version_is_found_in_both_of_two_measurements(compare, capsys):
    class Version:
        def __init__(self, times):
            self.times = iter(times)

        def time(self, case):
            return next(self.times)

    def slower(head):
        return compare.report((Version([1.0] * 100), Version(head)), ["case"], 10, tolerance=0.03)

    assert slower([1.2] * 100) == ["case"]
    assert "0.83 (0.83 to 0.83)  slower" in capsys.readouterr().out
    assert slower([1.2] * 13 + [1.0] * 80) == []  # only in the first measurement
    assert slower([1.02] * 100) == []


def test_the_package_of_another_folder_is_refused(compare, tmp_path):
    with pytest.raises(RuntimeError, match=r"^package: expected the one in"):
        compare.Worker(tmp_path, 1)
