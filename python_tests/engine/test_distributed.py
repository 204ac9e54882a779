import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vreid_ext import engine
from vreid_ext.engine.checkpoint import resolve_checkpoint

SCRIPT = Path(__file__).with_name("plain_model.py")


def test_two_processes_have_the_losses_and_weights_of_one(mars_root, tmp_path):
    (tmp_path / "plain.yaml").write_text(
        f"""
        dataset: {{name: mars, root: "{mars_root}"}}
        model: {{name: plain}}
        input: {{height: 32, width: 16, frames: 2}}
        batch: {{p: 2, k: 2, accumulate: 2}}
        optim: {{lr: 0.01}}
        train: {{epochs: 3, workers: 0, eval_every: 1}}
        """
    )
    runpy.run_path(str(SCRIPT))
    engine.train(engine.load_recipe(tmp_path / "plain.yaml"), tmp_path / "one", quiet=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(SCRIPT), str(tmp_path / "plain.yaml"), str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    one, two = (
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    )
    assert [line["kind"] for line in one] == ["step", "epoch", "eval"] * 3
    for a, b in zip(one, two, strict=True):
        assert numbers(a) == pytest.approx(numbers(b), rel=1e-5)
    assert one[0]["triplet"] > 0
    weights = [
        load_file(resolve_checkpoint(tmp_path / run) / "weights.safetensors") for run in ("one", "two")
    ]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def numbers(line):
    return {name: value for name, value in line.items() if not isinstance(value, str)}
