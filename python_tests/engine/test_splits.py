"""Ten splits: a run for each, and their mean and deviation."""

import json
from statistics import fmean, stdev

import pytest

from vreid_ext import engine
from vreid_ext.engine.splits import evaluate_splits, parse_splits, train_splits


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny, ilids_root):
    recipe = engine.load_recipe("drsta_ilids_baseline", [*tiny, f"dataset.root={ilids_root}"])
    folder = tmp_path_factory.mktemp("runs") / "drsta"
    return folder, train_splits(recipe, folder, [0, 3], quiet=True)


def test_every_split_has_its_run_and_the_figures_are_averaged(run):
    folder, summary = run
    singles = [json.loads((folder / f"split-{n}/result.json").read_text())["rows"][0] for n in (0, 3)]
    row = summary["rows"][0]
    for name in ("mAP", "rank1"):
        values = [single[name] for single in singles]
        assert row[name]["mean"] == pytest.approx(fmean(values))
        assert row[name]["deviation"] == pytest.approx(stdev(values))
    assert ["split 1 of 10" in summary["protocols"][0], "split 4 of 10" in summary["protocols"][1]] == [
        True
    ] * 2
    assert json.loads((folder / "splits.json").read_text()) == summary


def test_evaluation_uses_the_model_of_each_split(run):
    folder, summary = run
    again = evaluate_splits(folder, [], [0, 3])
    assert again["rows"][0]["rank1"] == summary["rows"][0]["rank1"]
    assert evaluate_splits(folder, [], [3])["rows"][0]["rank1"]["deviation"] == 0
    with pytest.raises(ValueError, match="expected a run of split 2"):
        evaluate_splits(folder, [], [2])


def test_a_model_is_not_tested_on_people_it_was_trained_on(run):
    folder, _ = run
    with pytest.raises(ValueError, match="that was not trained on 'ilids'"):
        evaluate_splits(folder / "split-0", [], [0, 1])


def test_a_model_of_another_data_set_is_tested_on_every_split(run, prid_root, tmp_path):
    folder, _ = run
    overrides = ["dataset.name=prid", f"dataset.root={prid_root}"]
    summary = evaluate_splits(folder / "split-0", overrides, parse_splits("all"), out=tmp_path / "cross.json")
    assert len(summary["rows"][0]["rank1"]["splits"]) == 10
    assert all("PRID2011" in protocol for protocol in summary["protocols"])


@pytest.mark.parametrize("text", ["", "ten", "10", "-1", "0,12"])
def test_bad_splits_are_named(text):
    with pytest.raises(ValueError, match="splits: expected"):
        parse_splits(text)


def test_splits_by_name():
    assert parse_splits("all") == list(range(10))
    assert parse_splits("3,0") == [0, 3]
