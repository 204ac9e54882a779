import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from vreid_ext import engine
from vreid_ext.cli import application
from vreid_ext.data import build_dataset
from vreid_ext.engine.build import black_box_of, dataset_of, transforms_of
from vreid_ext.engine.features import export_features
from vreid_ext.engine.length_grid import evaluate_lengths
from vreid_ext.engine.search import read_split
from vreid_ext.report.ranked import ranked_lists


class FrameCount(nn.Module):
    """Tells how many frames it was given, and which by their mean colour."""

    def __init__(self):
        super().__init__()
        self.seen, self.colours = [], []

    def forward(self, clips, valid=None):
        self.seen.append((clips.shape[1], valid))
        mean = clips.mean((3, 4))
        if valid is not None:
            mean = mean.masked_fill(~valid[..., None], 0)
        self.colours.append(mean.mean(1))
        return self.colours[-1]


def test_every_pair_of_lengths_is_evaluated_once_embedded(mars_root):
    recipe = engine.load_recipe("synth_sta", ["input.height=32", "input.width=16", "train.workers=0"])
    dataset = build_dataset("mars", mars_root)
    model = FrameCount()
    result = evaluate_lengths(model, dataset, recipe, [1, 3, "all"])
    assert {frames for frames, _ in model.seen} == {1, 3, recipe.input.frames}
    assert result["lengths"] == [1, 3, "all"]
    for name in ("rank1", "mAP"):
        values = torch.tensor(result[name])
        assert values.shape == (3, 3)
        assert ((values >= 0) & (values <= 1)).all()
    assert torch.tensor(result["mAP"]).min() > 0
    assert result == evaluate_lengths(FrameCount(), dataset, recipe, [1, 3, "all"])


def test_random_clips_depend_on_the_seed(mars_root):
    dataset = build_dataset("mars", mars_root)
    drawn = []
    for seed in (0, 0, 5):
        model = FrameCount()
        recipe = engine.load_recipe(
            "synth_sta", ["input.height=32", "input.width=16", f"seed={seed}", "train.workers=0"]
        )
        evaluate_lengths(model, dataset, recipe, [1])
        drawn.append(torch.cat(model.colours))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_of_the_length_trained_on_it_agrees_with_the_evaluation(mars_root):
    recipe = engine.load_recipe("synth_sta", ["input.height=32", "input.width=16", "eval.sampling=dense"])
    dataset = build_dataset("mars", mars_root)
    usual = engine.evaluate_model(FrameCount(), dataset, recipe)["rows"][0]
    grid = evaluate_lengths(FrameCount(), dataset, recipe, ["all"])
    assert grid["rank1"] == [[usual["rank1"]]]
    assert grid["mAP"] == [[usual["mAP"]]]


@pytest.mark.parametrize("lengths", [[], [0], [1, "most"]])
def test_bad_lengths_are_named(mars_root, lengths):
    recipe, dataset = engine.load_recipe("synth_sta"), build_dataset("mars", mars_root)
    with pytest.raises(ValueError, match="lengths: expected"):
        evaluate_lengths(FrameCount(), dataset, recipe, lengths)


@pytest.fixture(scope="module")
def run(mars_root, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stal")
    options = ["model.split=layer2", "model.part_dim=8", f"dataset.root={mars_root}", "input.width=32"]
    engine.train(engine.load_recipe("synth_stal", [*tiny, *options]), folder, quiet=True)
    return folder


def test_the_command_writes_figures_and_a_heat_map(run, tmp_path):
    command = ["eval", str(run), "--lengths", "1,all", "--json", "--out", str(tmp_path / "grid.json")]
    done = CliRunner().invoke(application(), command)
    assert done.exit_code == 0, done.output
    picture = str(tmp_path / "grid.png")
    assert json.loads(done.stdout) == json.loads((tmp_path / "grid.json").read_text()) | {"picture": picture}
    assert Path(picture).stat().st_size > 5000


def test_another_data_set_without_joints_is_evaluated_with_the_standing_layout(
    run, tracklet_folder_root, tmp_path
):
    other = [
        "dataset.name=tracklet_folder",
        f"dataset.root={tracklet_folder_root}",
        "dataset.options.gallery=null",
    ]
    with pytest.warns(UserWarning, match="using the fixed part positions of a standing person"):
        result = engine.evaluate_checkpoint(run, other, out=tmp_path / "other.json")
    assert result["dataset"] == "tracklet_folder"
    assert result["rows"][0]["valid_queries"] == 2


def test_a_report_lists_by_the_distance_of_the_model_and_a_search_refuses(run, tmp_path):
    seen = []
    engine.evaluate_checkpoint(run, out=tmp_path / "figures.json", observe=seen.append)
    first = [places[0] for places in ranked_lists(seen[0], 1)]
    distance = seen[0].model.distance(seen[0].query, seen[0].gallery)
    for query, place in enumerate(first):
        torch.testing.assert_close(
            place.distance, float(distance[query, place.gallery]), rtol=1e-4, atol=1e-4
        )
    export_features(run, tmp_path / "features")
    with pytest.raises(ValueError, match="expected features with a metric, got those of model 'stal'"):
        read_split(tmp_path / "features", "query")


@pytest.mark.parametrize(
    "override",
    ["model.test_attention=none", "model.test_branches=local", "model.fusion=0.9", "dataset.black_box=12"],
)
def test_switches_of_the_test_change_distances_and_no_weights(run, override):
    distances = []
    for overrides in ([], [override]):
        model, recipe, _ = engine.open_checkpoint(run, overrides)
        query = dataset_of(recipe.dataset, recipe.model).query
        rows = engine.extract_features(
            model,
            query,
            frames=2,
            transform=transforms_of(recipe.input)[1],
            black_box=black_box_of(recipe.dataset),
        )
        distances.append(model.distance(rows, rows))
    assert not torch.allclose(*distances, rtol=1e-4)
