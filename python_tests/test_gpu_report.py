"""The GPU report runs from end to end, here with the CPU as the device; its figures mean nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_report.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *options]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_every_part_is_there(tmp_path):
    pytest.importorskip("torchvision")
    pytest.importorskip("matplotlib")
    pytest.importorskip("pytorch_metric_learning")
    result = run("--device", "cpu", "--tiny", "--out", str(tmp_path))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    content = json.loads((tmp_path / "rows.json").read_text())
    assert content["problems"] == content["skipped"] == []
    assert {row["op"] for row in content["rows"]} == {
        *("sta_pool", "batch_hard_triplet", "region_pool", "attention_map", "fuse", "identity_hard"),
        *("part_distance", "rank_counts"),
    }
    assert {row["provider"] for row in content["rows"]} >= {"native", "eager", "pytorch-metric-learning"}
    assert all(0 < row["q20"] <= row["median"] <= row["q80"] for row in content["rows"])
    assert content["limits"]["copy"] > 0
    assert content["training"]["steps"] == 4
    assert content["training"]["clips per second"] > 0
    assert content["training"]["share outside the backbone"] < 1
    table = (tmp_path / "report.md").read_text()
    assert table.count("| sta_pool |") == sum(row["op"] == "sta_pool" for row in content["rows"])
    assert "<svg" in (tmp_path / "roofline.svg").read_text()


def test_what_there_is_no_time_for_is_named(tmp_path):
    pytest.importorskip("matplotlib")
    result = run("--device", "cpu", "--tiny", "--out", str(tmp_path), "--minutes", "0.01")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    content = json.loads((tmp_path / "rows.json").read_text())
    assert content["rows"] == []
    assert "training" in content["skipped"]
    assert "- training" in (tmp_path / "report.md").read_text()


def test_without_a_gpu_it_says_so(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("asks about a machine without a GPU")
    result = run("--out", str(tmp_path))
    assert result.returncode == 2
    assert "torch sees no CUDA device" in result.stderr
