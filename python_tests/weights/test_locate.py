"""Files, folders and addresses of a model hub."""

import pytest
import torch
from safetensors.torch import save_file

from vreid_ext.weights import read_weights
from vreid_ext.weights.locate import located, located_system, parse_hub

COMMIT = "0" * 40
TENSORS = {"a": torch.ones(2)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache of huggingface_hub with one repository, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--net"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("hf:owner/net", ("owner/net", None, None)),
        ("hf:owner/net@v1", ("owner/net", None, "v1")),
        ("hf:owner/net/sub/net.pth@v1", ("owner/net", "sub/net.pth", "v1")),
    ],
)
def test_addresses(address, parts):
    assert parse_hub(address) == parts


@pytest.mark.parametrize("address", ["hf:", "hf:net", "hf:owner/", "hf:/n", "hf:owner/n@", "hf:owner/n/"])
def test_wrong_addresses(address):
    with pytest.raises(ValueError, match=r"^weights: expected hf:OWNER/NAME\[/FILE\]\[@REVISION\], got 'hf:"):
        located(address)


def test_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^weights: expected one of weights.safetensors, "):
        located(tmp_path)
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    assert read_weights(tmp_path).path.name == "pytorch_model.bin"
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert read_weights(tmp_path).path.name == "model.safetensors"


def test_a_repository_in_the_cache(cache):
    save_file(TENSORS, cache / "net.safetensors")
    assert read_weights("hf:owner/net/net.safetensors").tensors["a"].tolist() == [1, 1]
    save_file(TENSORS, cache / "model.safetensors")
    assert located("hf:owner/net") == cache / "model.safetensors"


def test_a_system_in_the_cache(cache):
    for name in ("state.json", "weights.safetensors"):
        (cache / name).write_text("{}")
    assert located_system("hf:owner/net") == cache
    with pytest.raises(ValueError, match=r"^source: expected hf:OWNER/NAME\[@REVISION\] without a file"):
        located_system("hf:owner/net/state.json")


def test_without_network_the_error_says_which_file_to_put_where(cache):
    url = "https://huggingface.co/owner/other/resolve/v1/net.pth"
    with pytest.raises(FileNotFoundError, match=f"net.pth of 'owner/other' not .*; put {url} into"):
        located("hf:owner/other/net.pth@v1")


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'vreid-ext\[hub\]'"):
        located("hf:owner/net")
