"""Re-ranking as a recipe's key, and clips drawn from the recipe's seed."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from vreid_ext import engine, metrics
from vreid_ext.cli import application
from vreid_ext.engine.comparison import ids
from vreid_ext.report.ranked import ranked_lists


@pytest.fixture(scope="module")
def run(mars_root, tiny, tmp_path_factory):
    """A trained run of `synth_sta`, shrunk."""
    out = tmp_path_factory.mktemp("rerank") / "run"
    overrides = [*tiny, "model.feature_dim=16", f"dataset.root={mars_root}"]
    engine.train(engine.load_recipe("synth_sta", overrides), out, quiet=True)
    return out


def test_figures_and_lists_are_of_reranked_distances(run):
    seen = []
    options = ["eval.rerank=true", "eval.rerank_k1=5", "eval.rerank_k2=2", "eval.rerank_lambda=0.2"]
    result = engine.evaluate_checkpoint(run, options, observe=seen.append)
    plain = engine.evaluate_checkpoint(run)

    (evaluated,), (row,) = seen, result["rows"]
    wanted = metrics.evaluate(
        evaluated.query, evaluated.gallery, *ids(evaluated.dataset), exclude=evaluated.itself,
        rerank={"k1": 5, "k2": 2, "lambda_value": 0.2},
    )  # fmt: skip
    assert (row["mAP"], row["cmc"]) == (wanted.mAP, wanted.cmc.tolist())
    assert result["metric"] == "re-ranked cosine"
    assert row["rerank"] == {"k1": 5, "k2": 2, "lambda_value": 0.2}
    assert result["file"].endswith("eval-mars-evenly-4-reranked.json")
    assert json.loads(Path(result["file"]).read_text()) == result
    assert plain["metric"] == "cosine"
    assert "rerank" not in plain["rows"][0]
    assert plain["rows"][0]["mAP"] != row["mAP"]

    first = [next((n for n, it in enumerate(q, 1) if it.kind == "hit"), 0) for q in no_junk(seen[0])]
    assert first == [int(hit) for hit in evaluated.result.per_query["first_hit"]]


def no_junk(evaluated):
    """The lists of every query without the junk, which no rank counts."""
    lists = ranked_lists(evaluated, len(evaluated.dataset.gallery))
    return [[item for item in each if item.kind != "junk"] for each in lists]


def test_a_list_of_reranked_distances_has_as_many_columns_as_asked_for():
    torch.manual_seed(0)
    query, gallery = torch.randn(3, 4), torch.randn(6, 4)
    pids, camids = torch.zeros(3, dtype=torch.int64), torch.arange(6) % 2
    labels = (pids, torch.arange(6) % 3, pids, camids)
    places, away = metrics.rank(query, gallery, *labels, top=8, rerank={"k1": 3}, metric="euclidean")
    assert places.shape == away.shape == (3, 8)
    assert (places[:, 5:] == -1).all()  # item 0 is junk, five remain
    assert (away.diff(dim=1) >= 0)[:, :4].all()


def test_published_figures_stand_beside_figures_of_their_own_kind(run):
    with_paper = ["paper.rows={4: {mAP: 80}}"]
    assert "paper_percent" in engine.evaluate_checkpoint(run, with_paper)["rows"][0]
    assert (
        "paper_percent" not in engine.evaluate_checkpoint(run, [*with_paper, "eval.rerank=true"])["rows"][0]
    )
    both = [*with_paper, "eval.rerank=true", "paper.rerank=true"]
    assert engine.evaluate_checkpoint(run, both)["rows"][0]["paper_percent"] == {"mAP": 80}


def test_a_model_with_a_distance_of_its_own_is_refused_before_anything_is_written(mars_root, tiny, tmp_path):
    overrides = [
        *tiny,
        "model.split=layer1",
        "model.part_dim=8",
        f"dataset.root={mars_root}",
        "eval.rerank=true",
    ]
    with pytest.raises(ValueError, match=r"^eval\.rerank: expected false for model 'stal'"):
        engine.train(engine.load_recipe("synth_stal", overrides), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("bad", "key"),
    [("eval.rerank_k1=0", "eval.rerank_k1"), ("eval.rerank_lambda=1.5", "eval.rerank_lambda")],
)
def test_options_out_of_range_name_the_key(bad, key):
    with pytest.raises(ValueError, match=rf"^{key.replace('.', chr(92) + '.')}: "):
        engine.load_recipe("synth_sta", [bad])


def test_random_clips_are_a_function_of_the_seed(run):
    rows = [
        engine.evaluate_checkpoint(run, ["eval.sampling=random", "eval.frames=[1]", f"seed={seed}"])["rows"][
            0
        ]
        for seed in (0, 0, 1)
    ]
    assert rows[0] == rows[1]
    assert rows[0]["cmc"] != rows[2]["cmc"] or rows[0]["mAP"] != rows[2]["mAP"]
    assert rows[0]["sampling"] == "random"


def test_stored_random_clips_belong_to_a_seed(run, tmp_path):
    random = ["eval.sampling=random", "eval.frames=[1]"]
    stored = engine.evaluate_checkpoint(run, random, features=tmp_path / "features")
    assert stored["rows"] == engine.evaluate_checkpoint(run, random)["rows"]
    with pytest.raises(ValueError, match="seed"):
        engine.evaluate_checkpoint(run, [*random, "seed=1"], features=tmp_path / "features")


def test_the_command_line_reranks(run):
    told = CliRunner().invoke(application(), ["eval", str(run), "--rerank", "--no-report", "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["metric"] == "re-ranked cosine"
