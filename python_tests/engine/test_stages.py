"""Training in stages: what rests, what learns, and that a stopped run ends with the same bits."""

import pytest
import torch
from safetensors.torch import load_file

from vreid_ext import engine
from vreid_ext.engine.recipe import Stage
from vreid_ext.engine.runlog import RunLog
from vreid_ext.engine.stages import Stages
from vreid_ext.models import DRSTA

STAGES = "stages=[{epochs: 1, freeze: [backbone, temporal]}, {epochs: 1, freeze: [backbone]}]"


@pytest.fixture
def recipe(tiny, ilids_root):
    return engine.load_recipe(
        "drsta_ilids",
        [*tiny, f"dataset.root={ilids_root}", STAGES, "train.epochs=3", "train.checkpoint_steps=1",
         "optim.lr=0.01", "model.regions=2", "model.hidden=4"],
    )  # fmt: skip


class Killed(BaseException):
    pass


def weights(run, name="weights") -> dict[str, torch.Tensor]:
    (checkpoint,) = (run / "checkpoints").iterdir()
    return load_file(checkpoint / f"{name}.safetensors")


def stop_after(monkeypatch, lines: int) -> None:
    write, left = RunLog.write, iter(range(lines))

    def stops(log, *args, **values):
        if next(left, None) is None:
            raise Killed
        write(log, *args, **values)

    monkeypatch.setattr(RunLog, "write", stops)


def test_a_stopped_staged_run_ends_with_the_same_bits(recipe, tmp_path, monkeypatch):
    engine.train(recipe, tmp_path / "whole", quiet=True)
    for lines in (2, 1, 4):
        with monkeypatch.context() as patch:
            stop_after(patch, lines)
            with pytest.raises(Killed):
                engine.train(recipe, tmp_path / "stopped", quiet=True)
    engine.train(recipe, tmp_path / "stopped", quiet=True)
    for name in ("weights", "optimizer", "objective"):
        whole, stopped = weights(tmp_path / "whole", name), weights(tmp_path / "stopped", name)
        assert whole.keys() == stopped.keys()
        assert all(torch.equal(whole[key], stopped[key]) for key in whole), name
    table = weights(tmp_path / "whole", "objective")["oim.table"]
    torch.testing.assert_close(table.norm(dim=1), torch.ones(len(table)))
    assert (tmp_path / "whole/log.jsonl").read_bytes() == (tmp_path / "stopped/log.jsonl").read_bytes()


def test_what_a_stage_freezes_does_not_move(recipe, tmp_path, monkeypatch):
    states = []
    enter = Stages.enter

    def watched(stages, epoch):
        states.append({key: value.clone() for key, value in stages.model.state_dict().items()})
        enter(stages, epoch)

    monkeypatch.setattr(Stages, "enter", watched)
    engine.train(recipe, tmp_path / "run", quiet=True)
    states.append(weights(tmp_path / "run"))

    def moved(epoch: int) -> set[str]:
        before, after = states[epoch], states[epoch + 1]
        return {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}

    assert moved(0) == {"spatial", "fc", "bn"}
    assert moved(1) == {"spatial", "fc", "bn", "temporal"}
    assert moved(2) == {"spatial", "fc", "bn", "temporal", "backbone"}


def test_what_the_model_fixed_stays_fixed():
    model = DRSTA(2, backbone="resnet18", hidden=4)
    model.fc.bias.requires_grad_(False)
    stages = Stages(model, [Stage(1, ["fc"])])
    model.train()
    stages.enter(0)
    assert not model.fc.weight.requires_grad
    stages.enter(1)
    assert model.fc.weight.requires_grad
    assert not model.fc.bias.requires_grad


def test_an_unknown_part_is_named_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"stages\[0\].freeze: expected .*, got 'backbon'; nearest: 'backbone'"
    ):
        Stages(DRSTA(2, backbone="resnet18", hidden=4), [Stage(1, ["backbon"])])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages=[{epochs: 0}]", r"stages\[0\].epochs: expected at least 1, got 0"),
        ("stages=[{epoch: 1}]", "epoch"),
        ("stages=3", "stages"),
    ],
)
def test_bad_stages_are_named(override, message):
    with pytest.raises(ValueError, match=message):
        engine.load_recipe("drsta_ilids", [override])


def test_a_stage_that_leaves_nothing_to_train_names_itself():
    model = DRSTA(2, backbone="resnet18", regions=2, hidden=4)
    everything = [name for name, _ in model.named_children()] + ["temporal"]
    with pytest.raises(ValueError, match=r"^stages\[1\]\.freeze: expected a stage that freezes part"):
        Stages(model, [Stage(1, ["backbone"]), Stage(1, everything)])
