"""`torchrun -m vreid_ext eval`: the bits of one process, an error where one is lost, and going on then."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from vreid_ext import engine, metrics

# The command, in which the process of rank LOST is killed once it has written a shard.
PROCESS = """
import os, signal, sys
from vreid_ext import cli
from vreid_ext.features import write as store

write = store.write_shard

def write_and_die(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ.get("LOST") == os.environ["RANK"]:
    store.write_shard = write_and_die
cli.main()
"""


@pytest.fixture(scope="module")
def run(mars_root, tiny, tmp_path_factory):
    """A trained run; its test set has 18 tracklets, that is six shards of three."""
    folder = tmp_path_factory.mktemp("run")
    options = ["model.feature_dim=16", f"dataset.root={mars_root}", "eval.shard=3"]
    engine.train(engine.load_recipe("synth_sta", [*tiny, *options]), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def alone(run):
    """Figures and features of one process."""
    result = engine.evaluate_checkpoint(run, out=run / "alone.json", features=run / "alone")
    return result["rows"], metrics.StoredFeatures(run / "alone").rows()[:]


def torchrun(processes, tmp_path, *arguments, lost=""):
    (tmp_path / "process.py").write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*command, str(tmp_path / "process.py"), *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "LOST": lost},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_lost_process_is_an_error_and_the_same_command_goes_on(run, alone, tmp_path):
    folder = tmp_path / "features"
    command = ("eval", run, "--no-report", "--json", "--out", tmp_path / "e.json", "--features", folder)
    start = time.monotonic()
    lost = torchrun(2, tmp_path, *command, lost="1")
    assert lost.returncode != 0
    assert time.monotonic() - start < 100
    assert lost.stdout == ""
    assert not (tmp_path / "e.json").exists()
    written = {path: path.stat().st_mtime_ns for path in folder.glob("rows-*")}
    assert written

    done = torchrun(3, tmp_path, *command)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()  # one process tells
    assert json.loads(line)["rows"] == json.loads((tmp_path / "e.json").read_text())["rows"] == alone[0]
    assert written.items() <= {path: path.stat().st_mtime_ns for path in folder.glob("rows-*")}.items()
    assert np.array_equal(metrics.StoredFeatures(folder).rows()[:], alone[1])


def test_two_processes_in_memory_have_the_figures_of_one(run, tmp_path):
    wanted = engine.evaluate_checkpoint(run, out=tmp_path / "one.json")
    done = torchrun(2, tmp_path, "eval", run, "--json", "--out", tmp_path / "two.json")
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["rows"] == wanted["rows"]
    assert (tmp_path / "two.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_write_the_bits_of_one(run, alone, tmp_path, processes):
    extracted = torchrun(processes, tmp_path, "extract", run, "--out", tmp_path / "features")
    assert extracted.returncode == 0, extracted.stderr[-3000:]
    assert len(extracted.stdout.splitlines()) == 1
    assert np.array_equal(metrics.StoredFeatures(tmp_path / "features").rows()[:], alone[1])
    command = ("eval", run, "--no-report", "--json", "--features", tmp_path / "features")
    done = torchrun(processes, tmp_path, *command)
    assert json.loads(done.stdout)["rows"] == alone[0]


@pytest.mark.slow
def test_lengths_in_two_processes(run, tmp_path):
    wanted = engine.evaluate_checkpoint_lengths(run, lengths=[1, "all"], out=tmp_path / "one.json")
    command = ("eval", run, "--lengths", "1,all", "--json", "--out", tmp_path / "two.json")
    done = torchrun(2, tmp_path, *command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["mAP"] == wanted["mAP"]
