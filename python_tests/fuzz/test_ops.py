"""Every op with unusual calls: some by hypothesis, which shrinks a failing one, a million with `-m slow`."""

import inspect
import os
import warnings
from collections import Counter

import pytest
from fuzz.calls import DRAWN, draw_call
from fuzz.campaign import poisoned_memory, report, supervised
from fuzz.judge import judge
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext import backends, ops


def test_every_op_is_drawn():
    public = {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}
    assert set(DRAWN) == public


@pytest.mark.parametrize("op", DRAWN)
@settings(max_examples=30, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_calls(op, r):
    with poisoned_memory(), warnings.catch_warnings(action="ignore"):
        judge(draw_call(r, op), "native", Counter())


def test_a_death_is_a_finding(tmp_path):
    counts, findings = supervised("native", 0, 0, 3, tmp_path, VREID_FUZZ_DIES_AT="1")
    assert [finding["number"] for finding in findings] == [1]
    assert "Fatal Python error: Aborted" in findings[0]["what"]
    assert (counts["deaths"], counts["calls"]) == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(40))
def test_a_million_calls(part, tmp_path):
    """Each instruction set in turn, with results in fresh memory and in memory used before."""
    count = int(os.environ.get("VREID_FUZZ_CALLS", 10**6)) // 80
    isas = backends.load("native").build_info()["usable_isas"]
    environment = {"VREID_ISA": isas[part % len(isas)], "VREID_FUZZ_KEPT": "1" if part % 2 else ""}
    seed = int(os.environ.get("VREID_FUZZ_SEED", "0"))
    counts, findings = supervised("native", seed, part * count, count, tmp_path, **environment)
    print(dict(counts), f"{len(findings)} findings", flush=True)
    report(findings)
