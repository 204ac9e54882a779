"""A run killed anywhere and started again by the same command ends as one that was never interrupted."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vreid_ext import engine
from vreid_ext.engine.runlog import RunLog


def files(run: Path) -> dict[str, bytes]:
    (checkpoint,) = (run / "checkpoints").iterdir()
    names = ("weights.safetensors", "optimizer.safetensors", "state.json")
    found = {name: (checkpoint / name).read_bytes() for name in names}
    return found | {name: (run / name).read_bytes() for name in ("log.jsonl", "result.json")}


OVERRIDES = [
    "train.epochs=4",
    "train.checkpoint_steps=1",
    "train.eval_every=2",
    "input.erase=0.5",
    "input.crop=2",
]


def test_a_run_killed_at_random_ends_with_the_same_bits(tiny_recipe, tmp_path):
    recipe = tiny_recipe(*OVERRIDES)
    recipe.save(tmp_path / "recipe.yaml")
    recipe = engine.load_recipe(tmp_path / "recipe.yaml")

    def command(run):
        return [sys.executable, "-m", "vreid_ext", "train", str(tmp_path / "recipe.yaml"), "--out", str(run)]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    engine.train(recipe, tmp_path / "whole", quiet=True)

    log = tmp_path / "killed" / "log.jsonl"
    moment = random.Random()
    lines = moment.randint(1, 9)
    process = subprocess.Popen(
        command(tmp_path / "killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    limit = time.monotonic() + 300
    while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") >= lines):
        assert time.monotonic() < limit, f"no {lines} lines in the log after 300 s"
        time.sleep(0.005)
    time.sleep(moment.random() * 0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(
        command(tmp_path / "killed"), env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "killed") == files(tmp_path / "whole"), f"killed after {lines} lines"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_stopped_over_and_over_ends_with_the_same_bits(tiny_recipe, tmp_path, monkeypatch, accumulate):
    recipe = tiny_recipe(
        *OVERRIDES, f"batch.accumulate={accumulate}", "train.epochs=2", "batch.p=1", "loss.triplet=0"
    )
    engine.train(recipe, tmp_path / "whole", quiet=True)
    write = RunLog.write
    for lines in (3, 2, 5):
        left = iter(range(lines))

        def stops(log, *args, left=left, **values):
            if next(left, None) is None:
                raise Killed
            write(log, *args, **values)

        with monkeypatch.context() as patch:
            patch.setattr(RunLog, "write", stops)
            with pytest.raises(Killed):
                engine.train(recipe, tmp_path / "often", quiet=True)
    engine.train(recipe, tmp_path / "often", quiet=True)
    assert files(tmp_path / "often") == files(tmp_path / "whole")
