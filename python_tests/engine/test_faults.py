"""What goes wrong around a run: it ends with an error that says what, leaves nothing broken, and goes on."""

import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vreid_ext import engine
from vreid_ext.data import ClipDataset, DatasetError
from vreid_ext.engine.checkpoint import checkpoints
from vreid_ext.engine.runlog import RunLog
from vreid_ext.features.stored import map_shard

MIB = 2**20


class Killed(BaseException):
    pass


def after_rows(monkeypatch, rows, what):
    """Call `what` once the run has logged so many rows."""
    write, written = RunLog.write, itertools.count(1)

    def writes(log, *args, **values):
        write(log, *args, **values)
        if next(written) == rows:
            what()

    monkeypatch.setattr(RunLog, "write", writes)


def steps(run: Path) -> list[int]:
    """Steps of the checkpoints, all of which can be read and are finite."""
    found = checkpoints(run)
    for checkpoint in found:
        for name in ("weights", "optimizer"):
            assert all(
                value.isfinite().all() for value in load_file(checkpoint / f"{name}.safetensors").values()
            )
    return [int(checkpoint.name.removeprefix("step-")) for checkpoint in found]


def test_a_checkpoint_half_removed_is_removed_by_the_next_start(small, whole, files, tmp_path, monkeypatch):
    def stops(folder, **_):
        if folder.exists():
            (folder / "state.json").unlink()
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stops)
        with pytest.raises(Killed):
            engine.train(small(), tmp_path / "run", quiet=True)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2
    engine.train(small(), tmp_path / "run", quiet=True)
    assert files(tmp_path / "run") == files(whole)


@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_full_disk(runs_on_a_small_disk, whole, files, count):
    server = runs_on_a_small_disk
    run, filler = server.seen / "run", server.seen / "filler"
    for number in range(count):
        draw = random.Random(number)
        room = draw.choice((draw.randrange(64 * 1024), draw.randrange(13 * MIB)))
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 32 * MIB - room)
        answer = server.attempt(server.disk / "run")
        assert answer["code"] == 1, room
        assert answer["error"].startswith("OSError: "), (room, answer)
        assert "No space left on device" in answer["error"], (room, answer)
        assert not (run / "result.json").exists()
        steps(run)
        filler.unlink()
        server.train(server.disk / "run")
        assert files(run) == files(whole), room
        shutil.rmtree(run)


@pytest.mark.parametrize("rows", [0, 2, 5])
def test_a_folder_that_cannot_be_written(runs_on_a_small_disk, whole, files, rows):
    server = runs_on_a_small_disk
    run = server.seen / "run"
    folder = server.disk / "run" / "checkpoints" if rows else server.disk
    answer = server.attempt(server.disk / "run", read_only=[str(folder), rows])
    assert answer["code"] == 1
    assert "Read-only file system" in answer["error"]
    assert str(folder) in answer["error"]
    assert (steps(run) != []) == (rows > 0)
    server.train(server.disk / "run")
    assert files(run) == files(whole)
    shutil.rmtree(run)


def test_a_clock_that_goes_back(small, whole, files, tmp_path, monkeypatch):
    now = itertools.count(2e9, -86400)
    monkeypatch.setattr(time, "time", lambda: next(now))

    def stops():
        raise Killed

    with monkeypatch.context() as patch:
        after_rows(patch, 5, stops)
        with pytest.raises(Killed):
            engine.train(small(), tmp_path / "run", quiet=True)
    engine.train(small(), tmp_path / "run", quiet=True)
    assert next(now) < 2e9 - 10 * 86400
    assert files(tmp_path / "run") == files(whole)


def test_a_killed_worker(small, whole, files, tmp_path, monkeypatch):
    load, loaded = ClipDataset._load, itertools.count(1)

    def dies(*arguments):
        if next(loaded) == 5:  # counted by each worker for itself
            os.kill(os.getpid(), signal.SIGKILL)
        return load(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ClipDataset, "_load", dies)
        with pytest.raises(
            RuntimeError, match=r"^train.workers: DataLoader worker .*(killed by signal|exited unexpectedly)"
        ):
            engine.train(small("train.workers=1"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "result.json").exists()
    engine.train(small(), tmp_path / "run", quiet=True)
    assert files(tmp_path / "run") == files(whole)


@pytest.mark.parametrize(("part", "workers"), [("train", 0), ("test", 0), ("train", 1)])
def test_images_that_disappear(small, whole, files, mars_root, tmp_path, monkeypatch, part, workers):
    recipe = small()
    data = engine.build.dataset_of(recipe.dataset)
    item = data.train[0] if part == "train" else data.gallery[0]
    folder = Path(item.paths[0]).parent
    away = folder.with_name("away")
    with monkeypatch.context() as patch:
        after_rows(patch, 1, lambda: folder.rename(away))
        recipe.train.workers = workers
        try:
            with pytest.raises(DatasetError, match=rf"^{folder}/.*\.jpg: no such image; restore it.*$"):
                engine.train(recipe, tmp_path / "run", quiet=True)
        finally:
            away.rename(folder)
    assert not (tmp_path / "run" / "result.json").exists()
    engine.train(small(), tmp_path / "run", quiet=True)
    assert files(tmp_path / "run") == files(whole)


def test_a_loss_that_is_not_finite(small, whole, files, tmp_path, monkeypatch):
    run, load = tmp_path / "run", ClipDataset._load
    with monkeypatch.context() as patch:

        def poisoned(clips, index):
            item = load(clips, index)
            if checkpoints(run) and clips.tracklets[index].pid == min(clips.labels or [0]):
                item["clip"][0, 0, 0, 0] = torch.nan
            return item

        patch.setattr(ClipDataset, "_load", poisoned)
        with pytest.raises(FloatingPointError, match=r"^epoch \d, batch \d: .*not_finite-0\.json") as raised:
            engine.train(small(), run, quiet=True)
    told = json.loads((run / "not_finite-0.json").read_text())
    assert f"epoch {told['epoch']}, batch {told['batch']}: {told['what']}" in str(raised.value)
    data = engine.build.dataset_of(small().dataset)
    names = {item.name for item in data.train if item.pid == min(data.labels)}
    assert {item["name"] for item in told["tracklets"]} <= names
    assert len(told["tracklets"]) == 2
    assert steps(run) == [4 * told["epoch"] + told["batch"]]
    assert not (run / "result.json").exists()
    engine.train(small(), run, quiet=True)
    assert not (run / "not_finite-0.json").exists()
    assert files(run) == files(whole)


@pytest.mark.parametrize("step", [3, 4, 8])
def test_weights_that_are_not_finite_are_neither_saved_nor_evaluated(
    small, whole, files, tmp_path, monkeypatch, step
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        taken, update = itertools.count(1), torch.optim.Adam.step

        def explodes(optimizer, *args, **options):
            update(optimizer, *args, **options)
            if next(taken) == step:
                optimizer.param_groups[0]["params"][0].data[0] = torch.inf

        patch.setattr(torch.optim.Adam, "step", explodes)
        with pytest.raises(FloatingPointError, match=r"embed\.0\.weight: expected finite weights"):
            engine.train(small(), run, quiet=True)
    assert steps(run) == [step - 1]
    assert not (run / "result.json").exists()
    engine.train(small(), run, quiet=True)
    assert files(run) == files(whole)


def test_a_log_that_was_cut_is_not_filled_up(small, whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "result.json").unlink()
    log = run / "log.jsonl"
    log.write_bytes(log.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"^out: expected at least \d+ bytes in .*log\.jsonl'.*, got 100"):
        engine.train(small(), run, quiet=True)
    assert log.stat().st_size == 100


def content(path: Path):
    """What a file of features holds; the order of the notes in a header is left to chance."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    tensors, notes = map_shard(path)
    return {name: (array.shape, array.tobytes()) for name, array in tensors.items()}, notes


def contents(folder: Path):
    return {path.name: content(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def features(runs, whole, tmp_path_factory):
    """Features that were extracted in one go, the lines of the engine that it took, and bytes."""
    folder = tmp_path_factory.mktemp("features") / "whole"
    answer = runs.attempt(folder, extract=str(whole), count=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return contents(folder), answer["lines"], size


@pytest.mark.parametrize("count", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_extractions_killed_at_any_line(runs, whole, features, tmp_path, count):
    wanted, lines, _ = features
    for number in range(count):
        draw = random.Random(number)
        folder = tmp_path / str(number)
        answer = runs.attempt(folder, extract=str(whole), at_line=draw.randint(1, lines))
        assert answer["code"] == -signal.SIGKILL
        for path in folder.glob("rows-*"):
            assert content(path) == wanted[path.name]
        runs.train(folder, extract=str(whole))
        assert contents(folder) == wanted, number


@pytest.mark.parametrize("count", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_features_on_a_full_disk(runs_on_a_small_disk, whole, features, count):
    server = runs_on_a_small_disk
    out, filler = server.seen / "features", server.seen / "filler"
    wanted, _, size = features
    for number in range(count):
        room = random.Random(number).randrange(size - 4096)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 32 * MIB - room)
        answer = server.attempt(server.disk / "features", extract=str(whole))
        assert answer["code"] == 1, room
        assert answer["error"].startswith("OSError: "), (room, answer)
        assert "No space left on device" in answer["error"], (room, answer)
        filler.unlink()
        server.train(server.disk / "features", extract=str(whole))
        assert contents(out) == wanted, room
        shutil.rmtree(out)


# Of two processes that of rank LOST is killed before its fourth step.
PROCESS = f"""
import itertools, os, runpy, signal, sys
import torch
from torch import distributed
from vreid_ext import engine

update, taken = torch.optim.Adam.step, itertools.count(1)

def step(*args, **options):
    if next(taken) == 4 and os.environ.get("LOST") == os.environ["RANK"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(*args, **options)

torch.optim.Adam.step = step
runpy.run_path({str(Path(__file__).with_name("train_and_die.py"))!r})
engine.train(engine.load_recipe(sys.argv[1], ["batch.p=2", "train.epochs=4"]), sys.argv[2], quiet=True)
distributed.destroy_process_group()
"""


def start_two(folder, recipe, run, lost=""):
    """Two processes as a cluster's own launcher starts them: nobody ends one because the other has died."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-c", PROCESS, str(recipe), str(run)]
    processes = []
    for rank in "01":
        own = {"OMP_NUM_THREADS": "1", "LOST": lost, "RANK": rank, "LOCAL_RANK": rank}
        with (folder / f"errors-{rank}.txt").open("w") as errors:
            processes.append(subprocess.Popen(command, env=os.environ | common | own, stderr=errors))
    return processes


def ended(folder, processes, limit=200):
    for rank, process in enumerate(processes):
        assert process.wait(limit) == 0, (folder / f"errors-{rank}.txt").read_text()[-3000:]


@pytest.mark.parametrize("lost", ["1", pytest.param("0", marks=pytest.mark.slow)])
def test_one_of_two_processes_killed(small_recipe, tmp_path, lost):
    run = tmp_path / "run"
    processes = start_two(tmp_path, small_recipe, run, lost)
    left = processes.pop(1 - int(lost))
    assert processes[0].wait(200) == -signal.SIGKILL
    try:
        assert left.wait(60) > 0  # an error of its own
    finally:
        left.kill()
    assert "Error" in (tmp_path / f"errors-{1 - int(lost)}.txt").read_text()
    assert steps(run) in ([3], [4])  # the gradients of the fourth step had been exchanged
    assert not (run / "result.json").exists()


@pytest.mark.slow
def test_two_processes_go_on_with_the_bits_of_two_that_were_not_disturbed(small_recipe, files, tmp_path):
    ended(tmp_path, start_two(tmp_path, small_recipe, tmp_path / "whole"))
    for lost in "01":
        run = tmp_path / f"lost-{lost}"
        for process in start_two(tmp_path, small_recipe, run, lost):
            assert process.wait(200) != 0
        ended(tmp_path, start_two(tmp_path, small_recipe, run))
        assert files(run) == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["0", "1"])
def test_torchrun_ends_when_a_process_is_killed(small_recipe, tmp_path, lost):
    (tmp_path / "process.py").write_text(PROCESS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "process.py"), str(small_recipe), str(tmp_path / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "LOST": lost},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr
    assert steps(tmp_path / "run") in ([3], [4])
    assert not (tmp_path / "run" / "result.json").exists()
