import json
import resource
from functools import partial

import pytest
import torch
from torch import nn

from vreid_ext.engine.checkpoint import (
    Position,
    checkpoints,
    load_optimizer,
    load_weights,
    read_state,
    resolve_checkpoint,
    save_checkpoint,
)

RECIPE = {"model": {"name": "tiny", "blocks": 4}}


def network():
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))


def trained(optimizer_of):
    model = network()
    optimizer = optimizer_of(model.parameters())
    for _ in range(2):
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    "optimizer_of",
    [
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, 0.1, 0.9),
    ],
    ids=["adam", "sgd", "momentum"],
)
def test_a_loaded_model_and_optimizer_go_on_as_the_saved_ones(tmp_path, optimizer_of):
    torch.manual_seed(0)
    model, optimizer = trained(optimizer_of)
    position = Position(epoch=3, batch=2, step=11, sums={"loss": 0.1}, log_bytes=5)
    save_checkpoint(tmp_path / "c", model, RECIPE, 7, optimizer=optimizer, position=position)

    copy = network()
    copied = optimizer_of(copy.parameters())
    load_weights(tmp_path / "c", copy, "the same")
    load_optimizer(tmp_path / "c", copied)
    assert Position(**read_state(tmp_path / "c")["position"]) == position
    x = torch.randn(4, 3)
    for net, opt in ((model, optimizer), (copy, copied)):
        opt.zero_grad()
        net(x).square().mean().backward()
        opt.step()
    for key, value in model.state_dict().items():
        assert torch.equal(value, copy.state_dict()[key]), key


def test_another_model_is_named_beside_the_wanted_one(tmp_path):
    save_checkpoint(tmp_path / "c", network(), RECIPE, 7)
    other = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6))
    before = other[0].weight.clone()
    with pytest.raises(ValueError, match=r"expected model 'wide', got model 'tiny' \(blocks=4; 7 classes\)"):
        load_weights(tmp_path / "c", other, "model 'wide'")
    assert torch.equal(other[0].weight, before)


def test_a_checkpoint_is_never_overwritten(tmp_path):
    save_checkpoint(tmp_path / "c", network(), RECIPE, 7)
    with pytest.raises(ValueError, match="folder: expected a new folder, got"):
        save_checkpoint(tmp_path / "c", network(), RECIPE, 7)


@pytest.fixture
def small_disk():
    """No file may grow beyond 100 kB: writing more fails half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_checkpoint_whole_and_nothing_else(tmp_path, small_disk):
    old = tmp_path / "checkpoints" / "step-00000001"
    save_checkpoint(old, network(), RECIPE, 7)
    with pytest.raises(OSError, match="step-00000002"):
        save_checkpoint(old.with_name("step-00000002"), nn.Linear(300, 300), RECIPE, 7)
    assert list(old.parent.iterdir()) == [old]
    assert resolve_checkpoint(tmp_path) == old
    load_weights(old, network(), "the same")


def test_an_error_from_elsewhere_is_not_taken_for_the_disks(tmp_path, monkeypatch):
    """A data loader tells of a killed worker by an exception at whatever line the main process is."""

    def lost(path):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr("vreid_ext.engine.checkpoint.flush", lost)
    with pytest.raises(RuntimeError, match=r"^DataLoader worker .* Killed\.$"):
        save_checkpoint(tmp_path / "step-00000001", network(), RECIPE, 4)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_write_leaves_no_checkpoint_and_does_not_disturb_the_next(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt  # as a signal would: no clean-up code runs

    folder = tmp_path / "checkpoints" / "step-00000001"
    with monkeypatch.context() as patch:
        patch.setattr("vreid_ext.engine.checkpoint.flush", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(folder, network(), RECIPE, 7)
    assert list(folder.parent.iterdir())
    assert checkpoints(tmp_path) == []
    save_checkpoint(folder, network(), RECIPE, 7)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_damaged_or_foreign_state_is_an_error_of_one_line(tmp_path):
    save_checkpoint(tmp_path / "c", network(), RECIPE, 7)
    (tmp_path / "c" / "state.json").write_text("{")
    with pytest.raises(ValueError, match=r"state.json is damaged"):
        read_state(tmp_path / "c")
    (tmp_path / "c" / "state.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match=r"expected format 1, got 99"):
        read_state(tmp_path / "c")
    with pytest.raises(ValueError, match="expected a checkpoint, a run that contains one, or a network"):
        resolve_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize("file", ["weights", "optimizer"])
@pytest.mark.parametrize("harm", [lambda content: content[:-1], lambda _: b"", lambda _: b"\xff" * 99])
def test_damaged_tensors_are_an_error_that_names_the_file(tmp_path, file, harm):
    torch.manual_seed(0)
    model, optimizer = trained(torch.optim.Adam)
    save_checkpoint(tmp_path / "c", model, RECIPE, 7, optimizer=optimizer)
    path = tmp_path / "c" / f"{file}.safetensors"
    path.write_bytes(harm(path.read_bytes()))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load, into = {
        "weights": (partial(load_weights, description="the same"), model),
        "optimizer": (load_optimizer, optimizer),
    }[file]
    with pytest.raises(ValueError, match=rf"^checkpoint: .*{file}\.safetensors' is damaged"):
        load(tmp_path / "c", into)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
