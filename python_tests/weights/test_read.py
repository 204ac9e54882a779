"""Files as training scripts write them: wrappers, NumPy scalars, both formats of `torch.save`."""

import argparse
import zipfile

import numpy as np
import pytest
import torch

from vreid_ext.weights.read import WRAPPERS, read_tensors

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "bn.num_batches_tracked": torch.tensor(3)}
KEPT = {"conv.weight": STATE["conv.weight"]}


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def as_numpy_1(path):
    """The same file with the names that NumPy 1 gives."""
    other = path.with_suffix(".numpy1.pth")
    found = False
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            found |= b"numpy._core" in content
            new.writestr(entry, content.replace(b"numpy._core", b"numpy.core"))
    assert found
    return other


@pytest.mark.parametrize("scalar", [np.float64(0.875), np.float32(0.5), np.int64(7), np.bool_(True), 0.5])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_torchreid(tmp_path, scalar, zipped):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    content = {
        "state_dict": {f"module.{key}": value for key, value in STATE.items()},
        "epoch": 60,
        "rank1": scalar,
        "optimizer": optimizer.state_dict(),
        "best_acc1": torch.tensor(0.7),
    }
    path = saved(tmp_path / "model.pth.tar-60", content, _use_new_zipfile_serialization=zipped)
    wanted = {f"module.{key}": value for key, value in KEPT.items()}
    assert equal(read_tensors(path), wanted)
    if zipped and isinstance(scalar, np.generic):
        assert equal(read_tensors(as_numpy_1(path)), wanted)


@pytest.mark.parametrize("wrapper", [*WRAPPERS, "my_own_name"])
def test_wrappers(tmp_path, wrapper):
    for content in ({wrapper: STATE}, {wrapper: {"state_dict": STATE}, "epoch": 3, "lr": [0.1]}):
        assert equal(read_tensors(saved(tmp_path / "net.pth", content)), KEPT)


def test_of_the_weights_and_their_average_the_weights_are_taken(tmp_path):
    content = {"ema": {"conv.weight": torch.zeros(1)}, "model": STATE}
    assert equal(read_tensors(saved(tmp_path / "net.pth", content)), KEPT)


def test_what_holds_no_weights_is_named(tmp_path):
    two = saved(tmp_path / "two.pth", {"first": STATE, "second": STATE})
    with pytest.raises(ValueError, match=r"two.pth: expected tensors under one of state_dict, .* 'second'"):
        read_tensors(two)
    none = saved(tmp_path / "none.pth", {"epoch": 3, "model": {}})
    with pytest.raises(ValueError, match=r"none.pth: expected tensors, got entries 'epoch', 'model' without"):
        read_tensors(none)
    listed = saved(tmp_path / "list.pth", [1])
    with pytest.raises(ValueError, match=r"expected a state dict in .*list.pth, got a list"):
        read_tensors(listed)


@pytest.mark.parametrize("zipped", [True, False])
def test_an_object_is_refused_in_one_line_that_names_its_class(tmp_path, zipped):
    content = {"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}
    path = saved(tmp_path / "net.pth", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"\(weights_only\), got an object of argparse.Namespace; ") as error:
        read_tensors(path)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("value", [np.array([1.0]), np.str_("x"), np.datetime64(0, "s"), np.complex64(1)])
def test_no_other_part_of_numpy_is_let_in(tmp_path, value):
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(ValueError, match=r"^weights: .*net.pth'"):
        read_tensors(saved(tmp_path / "net.pth", {"state_dict": STATE, "value": value}))
    assert set(torch.serialization.get_safe_globals()) == before


def test_the_inside_of_an_unpacked_checkpoint_is_no_weight_file(tmp_path):
    """torchreid 440: `data.pkl` out of the zip archive that `torch.save` writes."""
    path = saved(tmp_path / "net.pth", {"state_dict": STATE})
    with zipfile.ZipFile(path) as archive:
        (tmp_path / "data.pkl").write_bytes(archive.read("net/data.pkl"))
    with pytest.raises(ValueError, match=r"^weights: .*data.pkl' cannot be read: ") as error:
        read_tensors(tmp_path / "data.pkl")
    assert "\n" not in str(error.value)
