import json

import pytest
import torch

from vreid_ext import engine
from vreid_ext.engine.checkpoint import checkpoints
from vreid_ext.engine.objective import Objective
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Loss
from vreid_ext.losses import AITLoss, AttributeLoss, ITLoss
from vreid_ext.models import TrainingOutput


def lines(run, kind):
    found = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == kind]


def test_the_objective_is_the_weighted_sum_and_repeats_labels_for_frames():
    torch.manual_seed(0)
    output = TrainingOutput(torch.randn(8, 3), torch.randn(8, 5), {"inter_frame": torch.tensor(2.0)})
    labels = torch.tensor([0, 0, 1, 2])
    objective = Objective(Loss(softmax=2.0, triplet=0.0, inter_frame=0.5), {}, gather=lambda x: x)
    terms = objective(output, labels)
    expected = torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    assert terms.keys() == {"softmax", "inter_frame", "loss"}
    torch.testing.assert_close(terms["loss"], 2 * expected + 1)
    with pytest.raises(ValueError, match=r"loss.inter_frame: expected 0, .* got"):
        objective(output._replace(extras={}), labels)


SIZES = {"relevant": {"hat": 2, "age": 3}, "irrelevant": {"pose": 4}}


@pytest.mark.parametrize("form", ["paper", "authors"])
def test_the_terms_of_attributes(form):
    torch.manual_seed(0)
    logits = {"relevant": torch.randn(8, 5), "irrelevant": torch.randn(8, 4)}
    output = TrainingOutput(torch.randn(8, 2), torch.randn(8, 6), {}, logits)
    labels, attributes = torch.arange(8) // 4, torch.randint(2, (8, 3))
    weights = Loss(0.0, triplet=0.0, attributes=2.0, aitl=0.5, aitl_form=form, dvdp=True, metric="cosine")
    terms = Objective(weights, SIZES, gather=lambda x: x)(output, labels, attributes)
    recognition = sum(
        AttributeLoss(sizes)(logits[name], attributes[:, columns])
        for (name, sizes), columns in zip(SIZES.items(), (slice(2), slice(2, 3)), strict=True)
    )
    torch.testing.assert_close(terms["attributes"], recognition)
    if form == "paper":
        vectors = torch.cat([logits["relevant"], logits["irrelevant"]], 1).sigmoid()
        aitl = AITLoss()(output.feature, vectors, labels)
    else:
        loss = AITLoss(attribute_metric="euclidean", include_self=True)
        aitl = sum(loss(output.feature, each, labels) for each in logits.values()) / 2
    torch.testing.assert_close(terms["aitl"], aitl)
    torch.testing.assert_close(terms["dvdp"], ITLoss()(output.feature, labels))
    torch.testing.assert_close(terms["loss"], 2 * recognition + 0.5 * aitl)


@pytest.mark.parametrize("name", ["attributes", "aitl"])
def test_terms_of_attributes_need_a_stream(name):
    with pytest.raises(ValueError, match=rf"^loss.{name}: expected 0 for a model without attribute streams"):
        Objective(Loss(**{name: 1.0}), {}, gather=lambda x: x)


def test_a_run_learns_logs_and_keeps_its_newest_checkpoint(tiny_recipe, tmp_path):
    recipe = tiny_recipe("train.epochs=6", "train.eval_every=3", "optim.lr=1e-3", "schedule.warmup_epochs=0")
    result = engine.train(recipe, tmp_path, quiet=True)
    losses = [line["softmax"] for line in lines(tmp_path, "epoch")]
    assert losses[-1] < losses[0]
    assert [line["epoch"] for line in lines(tmp_path, "eval")] == [2, 5]
    assert len(lines(tmp_path, "step")) == 12
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000012"]
    assert list((tmp_path / "tensorboard").iterdir())
    # A finished run is not trained again, and its checkpoint gives the figures it reported.
    assert engine.train(recipe, tmp_path, quiet=True) == result
    again = engine.evaluate_checkpoint(tmp_path)
    assert again["rows"] == result["rows"]
    assert json.loads((tmp_path / "eval-mars-evenly-4.json").read_text()) == again


def test_accumulated_batches_make_one_step_and_the_last_group_may_be_short(tiny_recipe, tmp_path):
    engine.train(
        tiny_recipe("batch.p=1", "batch.accumulate=3", "loss.triplet=0", "train.epochs=2"),
        tmp_path,
        quiet=True,
    )
    assert [line["step"] for line in lines(tmp_path, "step")] == [1, 2, 3, 4]


def test_bfloat16_trains_after_float32_in_one_process(tiny_recipe, tmp_path):
    # oneDNN of torch 2.14 computes wrong bfloat16 convolutions with stride 2 and an output of width 1 on CPUs
    # with AMX, so the images are wider than in the other tests.
    for precision in ("no", "bf16"):
        recipe = tiny_recipe(f"train.precision={precision}", "input.width=64")
        engine.train(recipe, tmp_path / precision, quiet=True)
    first, second = (lines(tmp_path / precision, "step")[0]["loss"] for precision in ("no", "bf16"))
    assert first != second
    assert first == pytest.approx(second, rel=0.05)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(tiny_recipe, tmp_path):
    recipe = tiny_recipe(
        "train.epochs=50", "train.checkpoint_steps=1", "optim.lr=1e30", "schedule.warmup_epochs=0"
    )
    with pytest.raises(FloatingPointError, match=r"^epoch \d+, batch \d+: .*(is nan|is inf|got NaN)"):
        engine.train(recipe, tmp_path, quiet=True)
    (checkpoint,) = checkpoints(tmp_path)
    assert lines(tmp_path, "step")[-1]["step"] == int(checkpoint.name.removeprefix("step-"))
    assert not (tmp_path / "result.json").exists()


def test_a_folder_with_other_results_is_refused_untouched(tiny_recipe, tmp_path):
    run = tmp_path / "run"
    engine.train(tiny_recipe("optim.lr=0.25"), run, quiet=True)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    with pytest.raises(ValueError, match=r"same recipe.*optim.lr: 0.25, 0.1"):
        engine.train(tiny_recipe("optim.lr=0.1"), run, quiet=True)
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="with other files"):
        engine.train(tiny_recipe(), tmp_path / "other", quiet=True)


def test_nothing_is_written_where_the_data_cannot_be_read(tiny_recipe, tmp_path):
    for override in (f"dataset.root={tmp_path / 'none'}", "dataset.root=null", "batch.p=99"):
        with pytest.raises(ValueError, match=r"none|dataset\.root|p:"):
            engine.train(tiny_recipe(override), tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model_is_refused(tiny_recipe, tmp_path):
    engine.train(tiny_recipe(), tmp_path, quiet=True)
    with pytest.raises(
        ValueError, match=r"expected model 'sta' .*feature_dim=32.*got model 'sta' .*feature_dim=16"
    ):
        engine.evaluate_checkpoint(tmp_path, ["model.feature_dim=32"])


def test_a_run_killed_while_it_wrote_its_recipe_can_be_started_again(tiny_recipe, tmp_path):
    (tmp_path / ".recipe.yaml.partial").write_text("seed:")
    engine.train(tiny_recipe(), tmp_path, quiet=True)
    assert not (tmp_path / ".recipe.yaml.partial").exists()


def test_channels_last_is_kept_in_the_evaluation_of_a_checkpoint(tiny_recipe, tmp_path):
    result = engine.train(tiny_recipe("train.channels_last=true"), tmp_path / "run", quiet=True)
    model, recipe, _ = open_checkpoint(tmp_path / "run")
    weight = next(each for each in model.parameters() if each.dim() == 4 and each.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert engine.evaluate_checkpoint(tmp_path / "run")["rows"][0]["mAP"] == result["rows"][0]["mAP"]

    usual, *_ = open_checkpoint(tmp_path / "run", ["train.channels_last=false"])
    clips = torch.rand(3, 2, 3, recipe.input.height, recipe.input.width)
    torch.testing.assert_close(model(clips), usual(clips), rtol=1e-4, atol=1e-4)


def test_figures_with_corrupted_frames_have_a_file_of_their_own(tiny_recipe, tmp_path):
    engine.train(tiny_recipe(), tmp_path / "run", quiet=True)
    clean, corrupted = (
        engine.evaluate_checkpoint(tmp_path / "run", [f"eval.corrupt={share}"]) for share in (0, 1)
    )
    assert corrupted["file"] == clean["file"].replace(".json", "-corrupted.json")
    assert corrupted["rows"][0]["corrupt"] == {"share": 1, "seed": 0}
    assert "corrupt" not in clean["rows"][0]
    assert json.loads((tmp_path / "run" / "recipe.yaml").read_text().split("corrupt: ")[1].split()[0]) == 0
