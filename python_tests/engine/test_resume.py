"""A run killed anywhere and started again by the same command ends as one that was never interrupted."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from vreid_ext import engine
from vreid_ext.engine.checkpoint import checkpoints, read_state
from vreid_ext.engine.runlog import RunLog

OVERRIDES = [
    "train.epochs=4",
    "train.checkpoint_steps=1",
    "train.eval_every=2",
    "input.erase=0.5",
    "input.crop=2",
]


def test_a_run_killed_at_random_ends_with_the_same_bits(tiny_recipe, files, tmp_path):
    recipe = tiny_recipe(*OVERRIDES)
    recipe.save(tmp_path / "recipe.yaml")
    recipe = engine.load_recipe(tmp_path / "recipe.yaml")

    engine.train(recipe, tmp_path / "whole", quiet=True)

    run, errors = tmp_path / "killed", tmp_path / "errors.txt"
    command = [sys.executable, "-m", "vreid_ext", "train", str(tmp_path / "recipe.yaml"), "--out", str(run)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}

    def wait(done) -> None:
        """Until `done()`; a process that hangs is made to say where it stands."""
        limit = time.monotonic() + 300
        while not done():
            if time.monotonic() > limit:
                process.send_signal(signal.SIGABRT)
                process.wait()
                pytest.fail(f"a process hung:\n{errors.read_text()}")
            time.sleep(0.005)

    def logged() -> int:
        log = run / "log.jsonl"
        return log.read_bytes().count(b"\n") if log.is_file() else 0

    moment = random.Random()
    lines = moment.randint(1, 9)
    with errors.open("w") as stderr:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
        wait(lambda: process.poll() is not None or logged() >= lines)
        time.sleep(moment.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
        wait(lambda: process.poll() is not None)
    assert process.returncode == 0, errors.read_text()
    assert files(run) == files(tmp_path / "whole"), f"killed after {lines} lines"


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("accumulate", "channels_last"), [(1, False), (3, False), (1, True)])
def test_a_run_stopped_over_and_over_ends_with_the_same_bits(
    tiny_recipe, files, tmp_path, monkeypatch, accumulate, channels_last
):
    recipe = tiny_recipe(
        *OVERRIDES,
        f"batch.accumulate={accumulate}",
        f"train.channels_last={channels_last}",
        "train.epochs=2",
        "batch.p=1",
        "loss.triplet=0",
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


@pytest.fixture(scope="module")
def places(runs, tmp_path_factory):
    """How many lines of the engine a run executes, in all and in the saving of checkpoints."""
    answer = runs.attempt(tmp_path_factory.mktemp("counted") / "run", count=True)
    return answer["lines"], answer["saves"]


def kill_and_resume(runs, run, places, draw):
    """Kill a run one to three times, by one of three ways; what is on the disk then is whole. End it."""
    for again in range(draw.choice((1, 1, 2, 3))):
        lines, saves = (count // (2 if again else 1) for count in places)
        how = draw.choice(
            (
                {"at_line": draw.randint(1, lines)},
                {"at_save": draw.randint(1, saves)},
                {"in_write": [draw.randint(1, 3 if again else 7), draw.random() * 0.02]},
            )
        )
        answer = runs.attempt(run, **how)
        assert answer["code"] == -signal.SIGKILL or again, (how, answer)
        for checkpoint in checkpoints(run):
            assert read_state(checkpoint)["position"]["step"] == int(checkpoint.name.removeprefix("step-"))
            for name in ("weights", "optimizer"):
                load_file(checkpoint / f"{name}.safetensors")
    runs.train(run)


# Several tests, since one may take ten minutes at most.
HUNDREDS = [pytest.param(range(n, n + 100), marks=pytest.mark.slow, id=f"{n}") for n in range(100, 600, 100)]


@pytest.mark.parametrize("numbers", [range(6), *HUNDREDS])
def test_runs_killed_at_any_line_and_inside_a_write(runs, whole, files, places, tmp_path, numbers):
    for number in numbers:
        run = tmp_path / "run"
        kill_and_resume(runs, run, places, random.Random(number))
        assert files(run) == files(whole), f"number {number}"
        shutil.rmtree(run)
