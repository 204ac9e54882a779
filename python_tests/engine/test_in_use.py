"""Every command that writes a folder or a file says so where another process writes it already."""

import threading

import pytest

from vreid_ext import engine
from vreid_ext._lock import InUseError, one_writer
from vreid_ext.data import build_dataset
from vreid_ext.data.pose.estimate import estimate_joints
from vreid_ext.data.synth import synthesize
from vreid_ext.data.video.extract import extract_tracklets, extract_videos
from vreid_ext.engine.export import export_model
from vreid_ext.engine.features import export_features
from vreid_ext.report.page import report_checkpoint


@pytest.fixture
def hold():
    """Holds a lock as another process would: in another thread."""
    done, threads = threading.Event(), []

    def start(target, inside):
        held = threading.Event()

        def holds():
            with one_writer("out", target, inside=inside):
                held.set()
                done.wait()

        threads.append(threading.Thread(target=holds))
        threads[-1].start()
        assert held.wait(60)

    yield start
    done.set()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    engine.train(small("train.epochs=1", "train.eval_every=0", "input.erase=0"), folder, quiet=True)
    return folder


FOLDERS = {
    "train": lambda run, out: engine.train(engine.load_recipe(run / "recipe.yaml"), out, quiet=True),
    "extract": lambda run, out: export_features(run, out),
    "eval --features": lambda run, out: engine.evaluate_checkpoint(run, features=out, out=run / "e.json"),
}
FILES = {
    "eval": lambda run, out: engine.evaluate_checkpoint(run, out=out),
    "eval --lengths": lambda run, out: engine.evaluate_checkpoint_lengths(run, [], [1], out=out),
    "report": lambda run, out: report_checkpoint(run, figures=out),
    "export": lambda run, out: export_model(run, out, format="torch"),
    "synth": lambda run, out: synthesize(out, ids=4, size=(32, 16)),
    "tracklets": lambda run, out: extract_tracklets("street.avi", out),
    "tracklets of a folder": lambda run, out: extract_videos("videos", out),
    "joints": lambda run, out: estimate_joints(
        build_dataset("mars", engine.load_recipe(run / "recipe.yaml").dataset.root), None, out
    ),
}


@pytest.mark.parametrize("command", [*FOLDERS, *FILES])
def test_a_second_process_is_refused_and_changes_nothing(command, run, hold, tmp_path):
    target = tmp_path / "a" / ("out.pt2" if command == "export" else "out.jsonl")
    hold(target, command in FOLDERS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InUseError, match=f"'{target}' is being written by process"):
        (FOLDERS | FILES)[command](run, target)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_complete_features_are_read_by_as_many_as_like(run, hold, tmp_path):
    wanted = engine.evaluate_checkpoint(run, features=tmp_path / "f", out=tmp_path / "a.json")["rows"]
    hold(tmp_path / "f", True)
    assert engine.evaluate_checkpoint(run, features=tmp_path / "f", out=tmp_path / "b.json")["rows"] == wanted
