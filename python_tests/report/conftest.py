"""A small run whose names and paths are what the page must not take for markup."""

from itertools import product

import numpy as np
import pytest
from PIL import Image

from vreid_ext import engine

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> & 'q'"
# A line break, a byte that is no UTF-8, what would keep a script from ending, and half a formula.
ODD = "line\nbreak \udcff <!--<script> $\\frac{$"


@pytest.fixture(scope="session")
def own_tracklets(tmp_path_factory):
    """Four persons to train on, four to find; from each, two tracklets in each of two cameras."""
    root = (
        tmp_path_factory.mktemp("data")
        / "<"
        / "script><script>document.title='owned'<"
        / 'script>"set" & co #1'
    )
    rng = np.random.default_rng(0)
    for person, camera, tracklet, frame in product(range(8), (1, 2), (1, 2), range(3)):
        splits = ["train"] if person < 4 else ["gallery"] + ["query"] * (tracklet == 1)
        image = Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8))
        for split in splits:
            name = f"{person} {ODD if person == 7 else HOSTILE}"
            folder = root / split / name / f"cam{camera}" / str(tracklet)
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{frame}.png")
    return root


@pytest.fixture(scope="session")
def run(own_tracklets, tmp_path_factory):
    """The folder of a run of one epoch."""
    settings = [
        "model.backbone=resnet18", "model.weights=none", "input.height=64", "input.width=16",
        "input.frames=2", "batch.p=2", "batch.k=2", "train.epochs=1", "train.workers=0",
        "eval.frames=[2,3]", "loss.inter_frame=0.5",
        f"dataset.root={own_tracklets}",
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "a run"
    engine.train(engine.load_recipe("vtest_sta", settings), folder, quiet=True)
    return folder


@pytest.fixture(scope="session")
def page(run, tmp_path_factory):
    """The run's page, and the figures it was made from."""
    from vreid_ext.report.page import report_checkpoint

    figures = tmp_path_factory.mktemp("pages") / '100% "it" & #.json'
    result = report_checkpoint(run, figures=figures, ranks=3, beside={"<u>beside</u></script>": run})
    return figures.with_suffix(".html"), result
