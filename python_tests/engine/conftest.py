"""Tiny data sets and recipes, so that whole runs take a second."""

import json
import os
import runpy
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from vreid_ext import engine

TINY = [
    "model.backbone=resnet18",
    "model.weights=none",
    "input.height=128",
    "input.width=16",
    "input.frames=2",
    "batch.p=2",
    "batch.k=2",
    "train.epochs=1",
    "train.workers=0",
    "eval.chunk=4",
]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Two threads that wait for each other are slower than one as soon as something else runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def mars_root(tmp_path_factory):
    """Eight rendered persons in MARS layout; four of them train."""
    from vreid_ext.data.synth import synthesize

    return synthesize(
        tmp_path_factory.mktemp("data") / "mars", ids=8, cameras=2, tracklets=2, frames=5, size=(32, 16)
    )


@pytest.fixture(scope="session")
def ilids_root(tmp_path_factory):
    """Eight rendered persons in the layout of iLIDS-VID."""
    return pairs(tmp_path_factory, "ilids", frames=5)


@pytest.fixture(scope="session")
def prid_root(tmp_path_factory):
    """Eight rendered persons in the layout of PRID2011, seven of them in both cameras."""
    return pairs(tmp_path_factory, "prid", frames=28)


def pairs(tmp_path_factory, layout, frames):
    from vreid_ext.data.synth import synthesize

    folder = tmp_path_factory.mktemp("data") / layout
    return synthesize(folder, layout=layout, ids=8, frames=frames, size=(32, 16))


@pytest.fixture(scope="session")
def dukev_root(tmp_path_factory):
    """Random images in the layout of DukeMTMC-VideoReID, and a table with attributes of most."""
    root = random_images(
        tmp_path_factory.mktemp("data") / "dukev",
        "{pid:04d}/{camera:04d}/{pid:04d}_C{camera}_F{frame:04d}_X1.jpg",
    )
    rows = [f"{pid},{camera},{camera}" + f",{pid % 2}" * 19 for pid in range(1, 7) for camera in (1, 2)]
    (root / "duke_attributes.csv").write_text("\n".join(["," * 21, *rows[1:]]))
    return root


@pytest.fixture(scope="session")
def cuhk03_root(tmp_path_factory):
    """Random images in the layout of CUHK03: six people, two images by each camera."""
    root = tmp_path_factory.mktemp("data") / "cuhk03"
    (root / "images_detected").mkdir(parents=True)
    rng, views = np.random.default_rng(0), [1, 1, 2, 2]
    for pid, number in product(range(1, 7), range(4)):
        image = Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8))
        image.save(root / "images_detected" / f"1_{pid:03}_{views[number]}_{number + 1:02}.png")
    place = np.arange(1, 25)
    parts = {"train_idx": place[:16], "query_idx": place[16::2], "gallery_idx": place[17::2]}
    table = {"labels": np.repeat(range(1, 7), 4), "camId": np.tile(views, 6), **parts}
    scipy.io.savemat(
        root / "cuhk03_new_protocol_config_detected.mat", {k: v[:, None] for k, v in table.items()}
    )
    return root


@pytest.fixture(scope="session")
def tracklet_folder_root(tmp_path_factory):
    """Random images in the layout of one's own tracklets."""
    return random_images(tmp_path_factory.mktemp("data") / "own", "{pid}/cam{camera}/one/{frame}.jpg")


def random_images(root: Path, name: str) -> Path:
    """Four persons that train and two to find, from two cameras, three frames each."""
    rng = np.random.default_rng(0)
    for split, pids, cameras in (
        ("train", range(1, 5), (1, 2)),
        ("query", (5, 6), (1,)),
        ("gallery", (5, 6), (2,)),
    ):
        for pid, camera, frame in product(pids, cameras, (1, 2, 3)):
            path = root / split / name.format(pid=pid, camera=camera, frame=frame)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Overrides that shrink a recipe."""
    return TINY


@pytest.fixture
def tiny_recipe(mars_root):
    """The recipe `synth_sta` shrunk; more overrides as arguments."""

    def load(*overrides: str) -> engine.Recipe:
        return engine.load_recipe(
            "synth_sta", [*TINY, "model.feature_dim=16", f"dataset.root={mars_root}", *overrides]
        )

    return load


@pytest.fixture
def one_image(tmp_path) -> Path:
    path = tmp_path / "frame.png"
    torch.manual_seed(0)
    Image.fromarray(torch.randint(256, (16, 8, 3), dtype=torch.uint8).numpy()).save(path)
    return path


@pytest.fixture(scope="session")
def files():
    """What a run leaves, as bytes by name; the one checkpoint's files by theirs."""

    def read(run: Path) -> dict[str, bytes]:
        (checkpoint,) = (run / "checkpoints").iterdir()
        names = ("weights.safetensors", "optimizer.safetensors", "state.json")
        found = {name: (checkpoint / name).read_bytes() for name in names}
        return found | {name: (run / name).read_bytes() for name in ("log.jsonl", "result.json")}

    return read


class Runs:
    """Trainings of one recipe in children of a process that has imported everything (`train_and_die.py`)."""

    SCRIPT = Path(__file__).with_name("train_and_die.py")

    def __init__(self, recipe: Path, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(self.SCRIPT), str(recipe)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def attempt(self, out: Path, **how) -> dict:
        """The answer to one job of the script."""
        print(json.dumps({"out": str(out), **how}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def train(self, out: Path, **how) -> None:
        answer = self.attempt(out, **how)
        assert answer["code"] == 0, answer

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(200) == 0
        self.process.stdout.close()


@pytest.fixture(scope="session")
def small_recipe(mars_root, tmp_path_factory) -> Path:
    """The recipe of runs with eight steps, a checkpoint after each, and two evaluations."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(
        f"""
        dataset: {{name: mars, root: "{mars_root}"}}
        model: {{name: forgetful}}
        input: {{height: 32, width: 16, frames: 2, erase: 0.5, crop: 2}}
        batch: {{p: 1, k: 2}}
        loss: {{triplet: 0}}
        optim: {{lr: 0.001}}
        train: {{epochs: 2, workers: 0, eval_every: 1, checkpoint_steps: 1}}
        """
    )
    return path


@pytest.fixture(scope="session")
def runs(small_recipe):
    server = Runs(small_recipe)
    yield server
    server.close()


@pytest.fixture(scope="session")
def with_a_mount():
    """The beginning of a command that sees an empty file system of so many MiB at a folder."""
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode:
        pytest.skip("no file system may be mounted here, not even in a namespace of its own")

    def command(folder, mebibytes: int) -> list[str]:
        mount = f'mount -t tmpfs -o size={mebibytes}m tmpfs \'{folder}\' && exec "$0" "$@"'
        return ["unshare", "-rm", "sh", "-c", mount]

    return command


@pytest.fixture(scope="session")
def runs_on_a_small_disk(small_recipe, with_a_mount, tmp_path_factory):
    """Runs that see a file system of 32 MiB at `disk`, which others see at `seen`."""
    disk = tmp_path_factory.mktemp("disk")
    server = Runs(small_recipe, *with_a_mount(disk, 32))
    server.disk, server.seen = disk, Path(f"/proc/{server.process.pid}/root", *disk.parts[1:])
    yield server
    server.close()


@pytest.fixture(scope="session")
def small(small_recipe):
    """The small recipe for runs in this process; more overrides as arguments."""
    runpy.run_path(str(Runs.SCRIPT))  # registers its model
    return lambda *overrides: engine.load_recipe(small_recipe, overrides)


@pytest.fixture(scope="session")
def whole(runs, tmp_path_factory) -> Path:
    """The small recipe's run that nothing has disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    runs.train(run)
    return run
