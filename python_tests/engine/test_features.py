"""Features on disk: what is written, what is refused, and that an extraction goes on where it stopped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from vreid_ext import engine, metrics
from vreid_ext.data import build_dataset
from vreid_ext.engine.comparison import Comparison
from vreid_ext.engine.features import stored_features


@pytest.fixture(scope="module")
def data(mars_root):
    return build_dataset("mars", mars_root)


@pytest.fixture
def recipe(mars_root, tmp_path):
    (tmp_path / "plain.yaml").write_text(
        f"""
        dataset: {{name: mars, root: "{mars_root}"}}
        model: {{name: avg}}
        input: {{height: 32, width: 16, frames: 2}}
        eval: {{frames: [2], chunk: 3, shard: 3}}
        train: {{workers: 0}}
        """
    )
    return engine.load_recipe(tmp_path / "plain.yaml")


class Killed(BaseException):
    pass


class Dying(nn.Module):
    """A model that fails after so many forward passes."""

    def __init__(self, passes=-1, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.left, self.passes = passes, 0

    def forward(self, clips, valid=None):
        if self.passes == self.left:
            raise Killed
        self.passes += 1
        return self.embed(clips.flatten(0, 1)).relu().mean((2, 3)).unflatten(0, clips.shape[:2]).mean(1)


def store(folder, data, recipe, model=None):
    return stored_features(model or Dying(), Comparison(data), recipe, recipe.eval.frames[0], folder)


def test_a_folder_gives_the_figures_of_memory(tmp_path, data, recipe, monkeypatch):
    monkeypatch.setattr("vreid_ext.features.rows._PIECE", 4 * 8 * 4)  # bytes: four rows
    seen = []
    wanted = engine.evaluate_model(Dying(), data, recipe, observe=seen.append)
    for _ in range(2):  # written, then found
        got = engine.evaluate_model(Dying(), data, recipe, features=tmp_path / "f", observe=seen.append)
        assert got == wanted
    for each in seen[1:]:
        assert torch.equal(each.query, seen[0].query)
        assert torch.equal(each.gallery, seen[0].gallery)

    stored = metrics.StoredFeatures(tmp_path / "f")
    stored.verify()
    labels = stored.labels("query"), stored.labels("gallery")
    result = metrics.evaluate(
        stored.rows("query"), stored.rows("gallery"),
        labels[0][0], labels[1][0], labels[0][1], labels[1][1], exclude=Comparison(data).itself,
    )  # fmt: skip
    assert result.mAP == wanted["rows"][0]["mAP"]
    with safe_open(tmp_path / "f" / "rows-000001.safetensors", "pt") as shard:
        assert torch.equal(shard.get_tensor("features"), torch.from_numpy(stored.rows()[3:6]))
    assert (
        stored.rows("gallery").part(2, 4)[np.array([1, 0])].tolist()
        == stored.rows("gallery")[2:4][::-1].tolist()
    )


def test_an_interrupted_extraction_goes_on(tmp_path, data, recipe):
    folder = tmp_path / "f"
    with pytest.raises(Killed):
        store(folder, data, recipe, Dying(passes=2))
    with pytest.raises(ValueError, match=r"^features: .* is incomplete"):
        metrics.StoredFeatures(folder)
    written = {path: path.stat().st_mtime_ns for path in folder.glob("rows-*")}
    assert len(written) == 2
    (folder / ".rows-000002.safetensors.partial").write_bytes(b"half")
    model = Dying()
    stored = store(folder, data, recipe, model)
    assert model.passes == len(stored.manifest["shards"]) - 2
    assert written.items() <= {path: path.stat().st_mtime_ns for path in folder.glob("rows-*")}.items()
    whole = store(tmp_path / "whole", data, recipe)
    assert stored.manifest == whole.manifest
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in whole.folder.iterdir()
    )


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flip_a_bit, "has a wrong checksum"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"\xff" * 99), "cannot be read"),
    ],
)
def test_a_damaged_shard_is_named_and_extracted_again(tmp_path, data, recipe, harm, message):
    folder = tmp_path / "f"
    before = store(folder, data, recipe)
    rows = before.rows()[:]
    damaged = folder / "rows-000001.safetensors"
    harm(damaged)
    with pytest.raises(ValueError, match=r"^features: .*rows-000001\.safetensors"):
        metrics.StoredFeatures(folder).verify()
    model = Dying()
    with pytest.warns(UserWarning, match=rf"rows-000001\.safetensors {message}"):
        mended = store(folder, data, recipe, model)
    assert model.passes == 1
    mended.verify()
    assert mended.manifest == before.manifest
    assert np.array_equal(mended.rows()[:], rows)
    damaged.unlink()
    with pytest.raises(ValueError, match=r"^features: expected \d+ bytes in .*rows-000001.*, got 0"):
        metrics.StoredFeatures(folder)


def test_a_shard_of_other_features_is_found(tmp_path, data, recipe):
    for seed in (0, 1):
        store(tmp_path / str(seed), data, recipe, Dying(seed=seed))
    name = "rows-000000.safetensors"
    (tmp_path / "0" / name).write_bytes((tmp_path / "1" / name).read_bytes())
    with pytest.raises(ValueError, match="belongs to other features"):
        metrics.StoredFeatures(tmp_path / "0").verify()


def test_features_of_something_else_are_refused(tmp_path, data, recipe, mars_root, ilids_root):
    folder = tmp_path / "f"
    store(folder, data, recipe)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=r"another model or data set .*Existing, new: weights: "):
        store(folder, data, recipe, Dying(seed=1))
    other = engine.load_recipe(tmp_path / "plain.yaml", ["eval.sampling=dense"])
    with pytest.raises(ValueError, match=r'Existing, new: eval\.sampling: "evenly", "dense"$'):
        store(folder, data, other)
    with pytest.raises(ValueError, match=r"Existing, new: tracklet 0: {.*}, {"):
        store(folder, build_dataset("ilids", ilids_root), recipe)
    first, *others = data.query
    turned = replace(data, query=[replace(first, paths=first.paths[::-1]), *others])
    with pytest.raises(
        ValueError, match=r'Existing, new: tracklet 0: {"images": "\w{16}"}, {"images": "\w{16}"}'
    ):
        store(folder, turned, recipe)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="with other files"):
        store(tmp_path / "used", data, recipe)


def test_each_length_has_a_folder(tmp_path, data, recipe):
    recipe.eval.frames = [1, 2]
    engine.evaluate_model(Dying(), data, recipe, features=tmp_path / "f")
    frames = [metrics.StoredFeatures(tmp_path / "f" / n).manifest["identity"]["eval.frames"] for n in "12"]
    assert frames == [1, 2]


def test_bad_folders_are_named(tmp_path, data, recipe):
    with pytest.raises(ValueError, match=r"which has no manifest\.json"):
        metrics.StoredFeatures(tmp_path)
    stored = store(tmp_path / "f", data, recipe)
    with pytest.raises(
        ValueError, match=r"^split: expected one of \['gallery', 'query'\] in .*, got 'train'"
    ):
        stored.rows("train")
    with pytest.raises(ValueError, match=r"^tensor: .* \['features'\] in .*, got 'attributes'"):
        stored.rows("query", "attributes")
    manifest = tmp_path / "f" / "manifest.json"
    manifest.write_text(json.dumps(stored.manifest | {"format": 9}))
    with pytest.raises(ValueError, match=r"^features: expected format 1, got 9"):
        metrics.StoredFeatures(tmp_path / "f")
    for text in ("{", "[]", "[" * 100_000):
        manifest.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json' is damaged"):
            metrics.StoredFeatures(tmp_path / "f")


def test_corrupted_frames_give_features_of_their_own(tmp_path, data, recipe):
    clean = store(tmp_path / "clean", data, recipe).rows("query")
    recipe.eval = replace(recipe.eval, corrupt=1.0)
    with pytest.raises(ValueError, match=r"eval\.corrupt"):
        store(tmp_path / "clean", data, recipe)
    corrupted = store(tmp_path / "corrupted", data, recipe).rows("query")
    assert not np.isclose(clean[:], corrupted[:]).all(1).any()
    recipe.eval = replace(recipe.eval, corrupt_seed=1)
    with pytest.raises(ValueError, match=r"eval\.corrupt"):
        store(tmp_path / "corrupted", data, recipe)
