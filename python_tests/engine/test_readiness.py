"""What would end a run after its last epoch is told before its first step."""

import shutil
from pathlib import Path

import pytest

from vreid_ext import engine
from vreid_ext.data import DatasetError, build_dataset, read_image
from vreid_ext.engine.build import datasets_of, model_of
from vreid_ext.engine.comparison import Comparison
from vreid_ext.engine.evaluate import evaluate_model, evaluate_sets
from vreid_ext.engine.readiness import images_of
from vreid_ext.engine.splits import evaluate_splits, train_splits
from vreid_ext.engine.train import _Run
from vreid_ext.models import STA


@pytest.fixture
def steps(monkeypatch):
    """The steps that any training takes."""
    taken = []
    monkeypatch.setattr(_Run, "_train_epoch", lambda run, epoch: taken.append(epoch))
    return taken


@pytest.fixture
def own(tracklet_folder_root, tmp_path) -> Path:
    """A copy of the data set with the three splits, to be damaged."""
    return Path(shutil.copytree(tracklet_folder_root, tmp_path / "own"))


@pytest.fixture
def recipe(tiny):
    def load(root, *overrides):
        return engine.load_recipe("vtest_sta", [*tiny, f"dataset.root={root}", *overrides])

    return load


def test_a_query_without_a_match(own, recipe, steps, tmp_path):
    for pid in (5, 6):
        (own / "gallery" / str(pid)).rename(own / "gallery" / str(pid + 10))
    with pytest.raises(ValueError, match="got none in tracklet_folder"):
        engine.train(recipe(own), tmp_path / "run", quiet=True)
    assert steps == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_an_image_that_only_the_evaluation_reads(own, recipe, steps, tmp_path, split):
    image = next((own / split).rglob("3.jpg"))
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(DatasetError, match=rf"{image}: cannot be read as an image"):
        engine.train(recipe(own), tmp_path / "run", quiet=True)
    assert steps == []
    assert not (tmp_path / "run").exists()


def test_an_evaluation_that_the_model_cannot_do(own, recipe, steps, tmp_path, monkeypatch):
    def forward(model, clips, valid=None):
        if not model.training:
            raise ValueError("valid: got what this model cannot do")

    monkeypatch.setattr(STA, "forward", forward)
    with pytest.raises(ValueError, match="cannot do"):
        engine.train(recipe(own), tmp_path / "run", quiet=True)
    assert steps == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["batch.p=1"], "batch.p, batch.k: expected at least 2 each, because loss.triplet .* got 1 and 2"),
        (["batch.k=1"], "batch.p, batch.k: expected at least 2 each, because loss.triplet .* got 2 and 1"),
        (["batch.k=1", "loss.triplet=0", "loss.itl=1"], "batch.k: expected at least 2, because loss.itl"),
        (
            ["batch.p=1", "batch.k=1", "loss.triplet=0", "loss.softmax=1"],
            "batch.p, batch.k: expected more than one clip per process",
        ),
        (["loss.triplet=0", "loss.softmax=0", "loss.inter_frame=0"], "loss: expected a weight above 0"),
        (
            ["dataset.options.split=half"],
            "split: expected float or None for data set 'tracklet_folder', got 'half'",
        ),
        (["model.blocks=two"], "blocks: expected int for model 'sta', got 'two'"),
    ],
)
def test_a_recipe_that_cannot_train(own, recipe, steps, tmp_path, overrides, says):
    with pytest.raises((ValueError, TypeError), match=says):
        engine.train(recipe(own, *overrides), tmp_path / "run", quiet=True)
    assert steps == []
    assert not (tmp_path / "run").exists()


def test_all_splits_are_looked_at_before_the_first_is_trained(ilids_root, tiny, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr("vreid_ext.engine.splits.train", lambda recipe, out, **_: trained.append(out))
    root = Path(shutil.copytree(ilids_root, tmp_path / "set"))
    recipe = engine.load_recipe("drsta_ilids_baseline", [*tiny, f"dataset.root={root}"])
    tested = {}
    for number in (0, 1):
        options = {**recipe.dataset.options, "split": number}
        data = build_dataset("ilids", root, **options)
        tested[number] = {tracklet.paths for tracklet in (*data.query, *data.gallery)}
    image = Path(min(tested[1] - tested[0])[0])
    image.write_bytes(b"")
    with pytest.raises(DatasetError, match=f"{image}: cannot be read"):
        train_splits(recipe, tmp_path / "run", [0, 1], quiet=True)
    assert trained == []


def test_all_splits_are_looked_at_before_the_first_is_evaluated(tmp_path, monkeypatch):
    evaluated = []
    monkeypatch.setattr("vreid_ext.engine.splits.evaluate_checkpoint", lambda *_, **__: evaluated.append(1))
    (tmp_path / "split-0").mkdir()  # looked at after it is clear that all are there
    with pytest.raises(ValueError, match="expected a run of split 1"):
        evaluate_splits(tmp_path, [], [0, 1])
    assert evaluated == []


def test_every_data_set_of_a_list_is_looked_at(own, mars_root, tiny, steps, tmp_path, monkeypatch):
    path = tmp_path / "two.yaml"
    path.write_text("base: vtest_sta\ndataset: [{name: mars}, {name: tracklet_folder}]\n")
    listed = engine.load_recipe(
        path, [*tiny, f"dataset.0.root={mars_root}", f"dataset.1.root={own}", "batch.p=2"]
    )
    image = next((own / "gallery").rglob("3.jpg"))
    image.write_bytes(b"")
    with pytest.raises(DatasetError, match=rf"{image}: cannot be read as an image"):
        engine.train(listed, tmp_path / "run", quiet=True)
    for pid in (5, 6):
        (own / "gallery" / str(pid)).rename(own / "gallery" / str(pid + 10))
    with pytest.raises(ValueError, match="got none in tracklet_folder"):
        engine.train(listed, tmp_path / "run", quiet=True)
    assert steps == []
    assert not (tmp_path / "run").exists()

    evaluated = []
    monkeypatch.setattr("vreid_ext.engine.evaluate.evaluate_model", lambda *_, **__: evaluated.append(1))
    with pytest.raises(ValueError, match="got none in tracklet_folder"):
        evaluate_sets(model_of(listed, 2), datasets_of(listed), listed)
    assert evaluated == []


@pytest.mark.parametrize("sampling", ["random", "evenly", "dense"])
def test_the_images_that_are_looked_at_are_those_of_the_evaluation(own, recipe, monkeypatch, sampling):
    asked = recipe(own, "eval.frames=[2,3]", f"eval.sampling={sampling}", "seed=3")
    test = Comparison(datasets_of(asked)[0])
    looked_at = {path for paths in images_of(asked, test) for path in paths}
    read = set()

    def read_and_note(path):
        read.add(path)
        return read_image(path)

    monkeypatch.setattr("vreid_ext.data.clips.dataset.read_image", read_and_note)
    evaluate_model(model_of(asked, 2), test.dataset, asked)
    assert read == looked_at
