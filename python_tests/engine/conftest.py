"""Tiny data sets and recipes, so that whole runs take a second."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
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
