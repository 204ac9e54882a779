"""Training and evaluation with attributes: who has none is counted, and what was recognised is reported."""

import json
import shutil

import pytest

from vreid_ext import engine
from vreid_ext.data import DatasetError

TABLE = "mars_attributes.csv"


@pytest.fixture
def recipe(tiny, mars_root, tmp_path):
    """A copy of the set, so that its table can be changed, and a recipe for it."""
    root = shutil.copytree(mars_root, tmp_path / "set")

    def load(*overrides):
        return engine.load_recipe("synth_asta", [*tiny, "batch.k=3", f"dataset.root={root}", *overrides])

    return root, load


def test_tracklets_without_attributes_are_counted_and_take_no_part(recipe, tmp_path):
    root, load = recipe
    header, *rows = (root / TABLE).read_text().splitlines()
    kept = [row for row in rows if not row.startswith("1,")]
    (root / TABLE).write_text("\n".join([header, *kept]))
    with pytest.warns(UserWarning, match=r"4 of 16 training tracklets of mars have no attributes"):
        result = engine.train(load(), tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {name: lines[0][name] for name in ("kind", "labelled", "unlabelled")} == {
        "kind": "attributes",
        "labelled": 12,
        "unlabelled": 4,
    }
    scores = result["rows"][0]["attributes"]
    assert len(scores) == 21
    for values in scores.values():
        assert 0 <= values["accuracy"] <= 1
        assert 0 <= values["f1"] <= 1
        assert (
            values["samples"] == 16
        )  # four test persons, two cameras, two tracklets; distractors have no attributes
    (evaluation,) = (line for line in lines if line["kind"] == "eval")
    assert evaluation["hat_accuracy"] == scores["hat"]["accuracy"]
    (epoch,) = (line for line in lines if line["kind"] == "epoch")
    assert epoch["dvdp"] >= 0


def test_a_set_without_a_table_is_refused_before_training(recipe, tmp_path):
    root, load = recipe
    (root / TABLE).unlink()
    with pytest.raises(DatasetError, match=r"expected training tracklets with attributes.*got none"):
        engine.train(load(), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_model_without_streams_needs_no_table(recipe, tmp_path):
    root, load = recipe
    (root / TABLE).unlink()
    baseline = load(
        "model.streams=[reid]", "model.asta=false", "loss.attributes=0", "loss.aitl=0", "loss.itl=1"
    )
    result = engine.train(baseline, tmp_path / "run", quiet=True)
    assert "attributes" not in result["rows"][0]


def test_another_table_is_not_mistaken_for_this_one(recipe, dukev_root, tmp_path):
    _, load = recipe
    engine.train(load(), tmp_path / "run", quiet=True)
    result = engine.evaluate_checkpoint(
        tmp_path / "run", ["dataset.name=dukev", f"dataset.root={dukev_root}", "dataset.options.gallery=null"]
    )
    assert result["dataset"] == "dukev"
    assert list(result["rows"][0]["attributes"]) == [
        "motion", "pose", "occlusion", "cut_out", "multi_person", "background_dominant", "target_change",
        "target_miss", "wrong_target",
    ]  # fmt: skip
