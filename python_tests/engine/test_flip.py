"""The flip test gives the same features in evaluation, extraction, embedding and export."""

import numpy as np
import pytest
import torch

from vreid_ext import engine
from vreid_ext.data.pose.joints import mirror_joints
from vreid_ext.engine.build import one_dataset_of
from vreid_ext.engine.embedder import Embedder
from vreid_ext.engine.export import export_model
from vreid_ext.engine.features import export_features
from vreid_ext.engine.flip import Mirrored


def test_clip_and_mirror_image_count_equally():
    def first_column(clips, valid, joints):
        assert valid is None
        return torch.cat([clips[:, 0, 0, :, 0], joints[:, 0, :, 0]], 1)

    clips, joints = torch.rand(3, 2, 3, 4, 5), torch.rand(3, 2, 14, 3)
    rows = Mirrored(first_column)(clips, joints=joints)
    pixels = (clips[:, 0, 0, :, 0] + clips[:, 0, 0, :, -1]) / 2
    positions = (joints[:, 0, :, 0] + mirror_joints(joints)[:, 0, :, 0]) / 2
    torch.testing.assert_close(rows, torch.cat([pixels, positions], 1))


@pytest.fixture(scope="module")
def run(mars_root, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flip") / "run"
    options = [*tiny, f"dataset.root={mars_root}", "eval.sampling=evenly", "eval.frames=[2]"]
    engine.train(engine.load_recipe("sta_mars_average", options), folder)
    return folder


def test_everything_that_computes_features_mirrors(run, tmp_path):
    (stored,) = export_features(run, tmp_path / "features", ["eval.flip=true"])
    rows = stored.rows("query")[:]
    (plain,) = export_features(run, tmp_path / "plain")
    assert not np.isclose(rows, plain.rows("query")[:]).all(1).any()
    assert stored.manifest["identity"]["eval.flip"] is True

    with pytest.raises(ValueError, match=r"eval\.flip"):
        export_features(run, tmp_path / "plain", ["eval.flip=true"])

    query = one_dataset_of(engine.load_recipe(run / "recipe.yaml")).query
    images = [list(map(str, each.paths)) for each in query]
    embedded = Embedder(run, overrides=["eval.flip=true"]).embed_many(images)
    np.testing.assert_allclose(embedded, rows, rtol=1e-4, atol=1e-5)

    file = tmp_path / "model.pt2"
    export_model(run, file, format="torch", overrides=["eval.flip=true"])
    np.testing.assert_allclose(Embedder(file).embed_many(images), rows, rtol=1e-3, atol=1e-4)


def test_results_say_that_the_features_are_mirrored(run, tmp_path):
    result = engine.evaluate_checkpoint(run, ["eval.flip=true"], features=tmp_path / "features")
    assert result["rows"][0]["flip"] is True
    assert list(run.glob("eval-mars-evenly-2-flipped.json"))
    plain = engine.evaluate_checkpoint(run)
    assert "flip" not in plain["rows"][0]
    every = engine.evaluate_checkpoint(run, ["eval.flip=true", "eval.sampling=dense"])["rows"][0]
    grid = engine.evaluate_checkpoint_lengths(run, ["eval.flip=true"], ("all",))
    assert grid["mAP"] == [[every["mAP"]]]
