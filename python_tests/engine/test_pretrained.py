"""A system as a folder: the same features, no paths of this machine, a card with the figures of the run."""

import json

import pytest
import torch
import yaml

from vreid_ext import Embedder, engine
from vreid_ext.engine.pretrained import save_pretrained

SMALL = [
    "model.backbone=resnet18", "model.feature_dim=16", "input.height=32", "input.width=16", "input.frames=2",
    "batch.p=2", "batch.k=2", "train.epochs=1", "train.workers=0", "stages=[]",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory, mars_root):
    folder = tmp_path_factory.mktemp("run")
    engine.train(engine.load_recipe("synth_avg", [f"dataset.root={mars_root}", *SMALL]), folder, quiet=True)
    return folder


def frames():
    return list(torch.randint(0, 256, (3, 40, 20, 3), dtype=torch.uint8).numpy())


def test_the_folder_has_the_features_of_the_run(run, mars_root, tmp_path, vreid):
    out = tmp_path / "published"
    code, printed, errors = vreid("save", str(run), str(out), "--license", "apache-2.0", "--json")
    assert code == 0, errors
    assert json.loads(printed)["files"] == ["README.md", "state.json", "weights.safetensors"]
    given = frames()
    before, after = Embedder(run, "cpu"), Embedder.from_pretrained(out, device="cpu")
    assert torch.equal(before.embed(given), after.embed(given))
    text = (out / "state.json").read_text()
    assert str(mars_root) not in text
    assert str(tmp_path) not in text
    figures = engine.evaluate_checkpoint(out, [f"dataset.root={mars_root}"])
    assert figures["file"] == str(out / "eval-mars-evenly-4.json")
    measured = json.loads((run / "result.json").read_text())["rows"][0]["mAP"]
    assert figures["rows"][0]["mAP"] == measured


def test_the_card_is_written_from_the_run(run, tmp_path):
    result = save_pretrained(run, tmp_path / "a", license="mit", name="My system")
    card = (tmp_path / "a" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    facts = yaml.safe_load(head)
    assert (facts["license"], facts["datasets"], facts["library_name"]) == ("mit", ["mars"], "vreid-ext")
    read = json.loads((run / "result.json").read_text())
    (row,) = result["figures"]
    assert row["mAP"]["low"] <= row["mAP"]["value"] <= row["mAP"]["high"]
    assert row["mAP"]["value"] == pytest.approx(read["rows"][0]["mAP"])
    assert body.startswith("\n# My system\n")
    interval = "{value:.1f} [{low:.1f}, {high:.1f}]".format(**{k: 100 * v for k, v in row["mAP"].items()})
    assert f"| mars | evenly, 4 frames | {interval} |" in body
    assert read["protocol"] in body
    assert "4 persons" in body


def test_a_card_without_figures_and_licence_says_so(run, tmp_path):
    save_pretrained(run, tmp_path / "b", figures=[])
    card = (tmp_path / "b" / "README.md").read_text()
    assert "license: unknown\n" in card
    assert "None were measured." in card
    assert "has not been stated" in card


def test_start_weights_of_this_machine_are_left_out(run, tmp_path):
    from vreid_ext.engine.pretrained import without_paths

    recipe = engine.open_checkpoint(run)[1].to_dict()
    recipe["model"]["weights"] = str(tmp_path / "mine.pth")
    recipe["dataset"] |= {"labels": "/a", "joints": "/b", "options": {"attributes": "/c", "every": 2}}
    cleaned = without_paths(recipe)
    assert cleaned["model"]["weights"] == "none"
    assert cleaned["dataset"]["options"] == {"every": 2}
    assert [cleaned["dataset"][key] for key in ("root", "labels", "joints")] == [None] * 3


def test_the_embedder_saves_itself(run, tmp_path):
    Embedder(run, "cpu").save_pretrained(tmp_path / "c", license="mit")
    assert Embedder.from_pretrained(tmp_path / "c", device="cpu").dimensions == 16


def test_errors(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match=r"^out: expected a new or empty folder"):
        save_pretrained(run, tmp_path / "full")
    with pytest.raises(ValueError, match=r"^folder: expected a folder with .*hf:OWNER/NAME, got"):
        Embedder.from_pretrained("owner/n")
