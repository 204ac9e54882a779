"""benchmarks/adaptation.py from end to end on a tiny set; its figures mean nothing."""

import json
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def adaptation(monkeypatch, tiny):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    script = runpy.run_path(str(BENCHMARKS / "adaptation.py"))
    target = script["Target"](
        "rendered",
        ("adapt.rounds=1", "adapt.k1=3", "adapt.k2=1", "adapt.min_samples=1", "adapt.eps=0.3"),
    )
    changed = {"SETTINGS": [*tiny, "model.neck=bn"], "SOURCES": {"rendered": ()}, "FIXED": []}
    changed["TARGETS"] = {"mars_copy": target}
    script["train"].__globals__.update(changed)
    return script


def test_a_model_is_trained_adapted_and_compared(adaptation, mars_root, tmp_path):
    out, results = tmp_path / "runs", tmp_path / "rows.json"
    out.mkdir()
    adaptation["train"]("rendered", mars_root, "none", out)
    assert json.loads((out / "rendered" / "result.json").read_text())["rows"] == []
    assert adaptation["summarize"](out, results)["rows"] == []
    adaptation["adapt_to"]("mars_copy", mars_root, out)
    (row,) = adaptation["summarize"](out, results)["rows"]
    assert (row["source"], row["target"]) == ("rendered", "mars_copy")
    gain = row["differences"][0]["mAP"]["value"]
    assert gain == pytest.approx(row["rows"][0]["mAP"] - row["before"][0]["mAP"])

    tables = runpy.run_path(str(BENCHMARKS / "tables.py"))
    results.rename(tmp_path / "adaptation.json")
    (tmp_path / "accuracy").mkdir()
    (tmp_path / "adaptation.json").rename(tmp_path / "accuracy" / "adaptation.json")
    tables["adaptation"].__globals__["RESULTS"] = tmp_path
    for part in ("gain", "rounds"):
        (line,) = [each for each in tables["adaptation"](part, str) if "mars_copy" in each]
        heading = next(each for each in tables["adaptation"](part, str) if each.startswith("| source"))
        assert line.count("|") == heading.count("|")
