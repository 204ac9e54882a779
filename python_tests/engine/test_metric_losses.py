"""Runs with losses of pytorch-metric-learning, the center loss and a moving average of the weights."""

import json
from functools import partialmethod

import pytest
import torch
from safetensors.torch import load_file

from vreid_ext import engine
from vreid_ext.engine.checkpoint import checkpoints
from vreid_ext.engine.objective import objective_of
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Loss
from vreid_ext.engine.runlog import RunLog

MINED = "TripletMarginLoss(margin=0.3, miner=BatchHardMiner())"
SMALL = ["batch.k=3", "train.evaluate=false", "optim.lr=0.01", "schedule.warmup_epochs=0"]


def last_step(run):
    steps = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [step for step in steps if step["kind"] == "step"][-1]


@pytest.mark.filterwarnings("ignore:.*(no attributes|no joints.json)")
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("synth_sta", ["model.feature_dim=16"]),
        ("synth_drsta", ["model.feature_dim=16", "model.hidden=4", "model.regions=2"]),
        (
            "synth_stal",
            ["model.part_dim=8", "model.split=layer3", "loss.part_triplet=0", "loss.part_softmax=0"],
        ),
        ("synth_asta", []),
    ],
)
def test_every_system_is_trained_with_them(recipe, overrides, tiny, mars_root, tmp_path):
    losses = f"0.5 * CircleLoss(m=0.25, gamma=256) + SupConLoss() + ArcFaceLoss() + CosFaceLoss() + {MINED}"
    settings = [
        *tiny,
        *SMALL,
        *overrides,
        "dataset.name=mars",
        f"dataset.root={mars_root}",
        "loss.triplet=0",
        "loss.center=0.001",
    ]
    loaded = engine.load_recipe(recipe, [*settings, f"loss.pml={losses}"])
    engine.train(loaded, tmp_path, quiet=True)
    step = last_step(tmp_path)
    assert step["step"] == 2
    names = {"CircleLoss", "SupConLoss", "ArcFaceLoss", "CosFaceLoss", "TripletMarginLoss", "center"}
    assert names <= step.keys()
    saved = load_file(checkpoints(tmp_path)[-1] / "objective.safetensors")
    model, _, _ = open_checkpoint(tmp_path)
    torch.manual_seed(loaded.seed)
    assert saved["center.centers"].shape == (4, model.feature_dim)
    assert saved["center.centers"].any(1).all()
    assert saved["pml.losses.ArcFaceLoss.W"].shape == (model.feature_dim, 4)


def test_losses_are_trained_saved_and_restored(tiny_recipe, files, tmp_path, monkeypatch):
    """A run that is stopped and resumed ends with the same bits in weights, averages and losses."""
    recipe = tiny_recipe(
        "loss.pml=ArcFaceLoss() + 0.1 * MarginLoss(learn_beta=True)", "loss.center=0.01", "train.ema=0.5",
        "train.epochs=2", "train.checkpoint_steps=1", "optim.name=adamw", "schedule.name=transreid",
        "schedule.warmup_epochs=1",
    )  # fmt: skip
    engine.train(recipe, tmp_path / "whole", quiet=True)

    class Killed(BaseException):
        pass

    write = RunLog.write

    def stops(log, kind, step, *, stop, **values):
        if step == stop:
            raise Killed
        write(log, kind, step, **values)

    for stop in (2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(RunLog, "write", partialmethod(stops, stop=stop))
            with pytest.raises(Killed):
                engine.train(recipe, tmp_path / "stopped", quiet=True)
    engine.train(recipe, tmp_path / "stopped", quiet=True)

    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    whole, stopped = (checkpoints(tmp_path / name)[-1] for name in ("whole", "stopped"))
    for name in ("current", "objective"):
        assert (whole / f"{name}.safetensors").read_bytes() == (stopped / f"{name}.safetensors").read_bytes()
    model, _, _ = open_checkpoint(whole)
    torch.manual_seed(recipe.seed)
    initial = objective_of(recipe.loss, model, 4).state_dict()
    trained = load_file(whole / "objective.safetensors")
    assert trained.keys() == initial.keys()
    beta = "pml.losses.MarginLoss.beta"
    assert not torch.equal(trained[beta], initial[beta])


def test_the_average_is_evaluated_and_saved(tiny_recipe, tmp_path):
    recipe = tiny_recipe("train.ema=0.25", "optim.lr=0.01", "schedule.warmup_epochs=0", "train.epochs=2")
    result = engine.train(recipe, tmp_path, quiet=True)
    assert engine.evaluate_checkpoint(tmp_path)["rows"] == result["rows"]
    (folder,) = checkpoints(tmp_path)
    average, current = (load_file(folder / f"{name}.safetensors") for name in ("weights", "current"))
    model, _, _ = open_checkpoint(tmp_path)
    assert torch.equal(model.state_dict()["fc.weight"], average["fc.weight"])
    assert not torch.equal(average["fc.weight"], current["fc.weight"])
    assert not torch.equal(average["bn.running_mean"], current["bn.running_mean"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.pml=CircelLoss()", "did you mean 'CircleLoss'"),
        ("loss.pml=ArcFaceLoss(num_classes=2)", "got ArcFaceLoss"),
    ],
)
def test_bad_losses_stop_the_run_before_it_writes(tiny_recipe, tmp_path, override, message):
    with pytest.raises(ValueError, match=rf"^loss.pml: .*{message}"):
        engine.train(tiny_recipe(override), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_model_without_the_size_of_its_feature_is_named():
    with pytest.raises(ValueError, match=r"^loss.center: expected a model with .* feature_dim, got Linear"):
        objective_of(Loss(center=1.0), torch.nn.Linear(2, 2), 4)
