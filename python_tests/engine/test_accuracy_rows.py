"""benchmarks/accuracy.py from end to end on a tiny set; its figures mean nothing."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vreid_ext import engine
from vreid_ext.models import Backbone

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch, tiny):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    script = runpy.run_path(str(BENCHMARKS / "accuracy.py"))
    changed = {"COMMON": [*tiny, "eval.sampling=evenly"]}
    changed["CONDITIONS"] = {"clean": [], "corrupted": ["eval.corrupt=0.9"]}
    for name in ("pretrain", "train", "collect"):
        script[name].__globals__.update(changed)
    return script


def test_rows_are_trained_once_and_compared_with_the_baselines(accuracy, mars_root, tmp_path):
    out, results = tmp_path / "runs", tmp_path / "rows"
    for name in ("frame", "average"):
        for seed in (0, 1):
            accuracy["train"](name, seed, mars_root, "none", out)
    kept = [out / "frame-0" / name for name in ("cost.json", "frame-corrupted.json", "consensus-clean.json")]
    before = [file.stat().st_mtime_ns for file in kept]
    accuracy["train"]("frame", 0, mars_root, "none", out)
    assert [file.stat().st_mtime_ns for file in kept] == before

    content = accuracy["collect"](out, results)
    assert json.loads(json.dumps(content)) == json.loads((tmp_path / "rows.json").read_text())
    assert accuracy["collect"](tmp_path / "no runs", results) == content  # the runs are no longer needed
    rows = {row["row"]: row for row in content["rows"]}
    of_models = [name for name, row in accuracy["ROWS"].items() if row.trained == "frame"]
    assert set(rows) == {"frame", "average", *of_models}
    for name, row in rows.items():
        compared = {"frame", "average", row["baseline"]} - {None, name}
        assert row["seeds"] == [0, 1]
        assert row["cpu_hours"] > 0
        for condition in ("clean", "corrupted"):
            assert row[condition]["minus"].keys() == compared
            assert 0 < row[condition]["mAP"]["value"] <= 1
    means = [engine.figures.read_result(out / f"frame-{seed}")["rows"][0]["mAP"] for seed in (0, 1)]
    assert rows["frame"]["clean"]["mAP"]["value"] == pytest.approx(sum(means) / 2, abs=1e-5)
    minus = rows["consensus"]["corrupted"]["minus"]["frame"]["mAP"]["value"]
    values = [rows[name]["corrupted"]["mAP"]["value"] for name in ("consensus", "frame")]
    assert minus == pytest.approx(values[0] - values[1], abs=1e-9)


def test_pretrained_rows_start_from_the_pretrained_network(accuracy, mars_root, tmp_path):
    with pytest.raises(ValueError, match="pretrained"):
        accuracy["train"]("cuhk03", 0, mars_root, "none", tmp_path)
    on_mars = accuracy["ROWS"]["parts"]  # the tiny set stands in for CUHK03
    accuracy["pretrain"].__globals__["PRETRAINING"] = on_mars
    accuracy["pretrain"](mars_root, "none", tmp_path)
    accuracy["train"]("cuhk03", 0, mars_root, "none", tmp_path)
    start = Path(engine.load_recipe(tmp_path / "cuhk03-0" / "recipe.yaml").model["weights"])
    assert start.is_relative_to(tmp_path / "pretrained")


def test_results_of_other_queries_are_refused(accuracy, mars_root, tmp_path):
    out, results = tmp_path / "runs", tmp_path / "rows"
    accuracy["train"]("frame", 0, mars_root, "none", out)
    accuracy["collect"](out, results)
    changed = json.loads((results / "consensus-0.json").read_text()) | {"queries": "of another data set"}
    (results / "consensus-0.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="consensus-0: expected the queries of frame"):
        accuracy["collect"](tmp_path / "no runs", results)


def test_recipes_of_the_rows_exist_and_have_a_baseline_among_the_rows(accuracy):
    rows = accuracy["ROWS"]
    for row in rows.values():
        common = accuracy["COMMON"] if row.trained is None else []
        engine.load_recipe(row.source, [*common, *row.overrides])
        assert row.trained is None or rows[row.trained].trained is None
        assert row.baseline is None or row.baseline in rows


def test_the_mixed_model_has_the_losses_of_both_baselines(accuracy):
    """Its two pure forms are the average and the frame baseline; "slot" mines in each position alone."""
    import frame_or_clip

    clips, label = torch.rand(4, 2, 3, 32, 16), torch.tensor([0, 0, 1, 1])
    model = frame_or_clip.FrameOrClip(2, backbone=Backbone({"conv": nn.Conv2d(3, 5, 3)}, 5))
    frames = model.backbone(clips.flatten(0, 1)).mean((2, 3))
    slots = frames.unflatten(0, (4, 2))
    expected = {
        "frame": model.triplet(frames, label.repeat_interleave(2)),
        "clip": model.triplet(slots.mean(1), label),
        "slot": (model.triplet(slots[:, 0], label) + model.triplet(slots[:, 1], label)) / 2,
    }
    for classified, samples in (("frame", 8), ("clip", 4)):
        for mined, loss in expected.items():
            model.classified, model.mined = classified, mined
            output = model(clips, label=label)
            assert output.logits.shape == (samples, 2)
            torch.testing.assert_close(output.extras["part_triplet"], loss)
    torch.testing.assert_close(model.eval()(clips), model.bn(slots.mean(1)))
