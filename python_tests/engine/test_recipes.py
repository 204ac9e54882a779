"""Every recipe of the package: two steps and one evaluation on a tiny set in its layout."""

import json
import math

import pytest
from typer.testing import CliRunner

from vreid_ext import engine
from vreid_ext.cli import application
from vreid_ext.engine.build import model_of
from vreid_ext.engine.recipe import TERMS


def _is_row(name: str) -> bool:
    """Rows of tables that differ in switches which synth_*, or the tests of STAL, turn as well."""
    first = ("drsta_ilids", "drsta_joint_temporal", "stal_ilids_occluded")
    return name.startswith("asta_mars_") or (name.startswith(("drsta_", "stal_")) and name not in first)


ROWS = [
    pytest.param(name, marks=pytest.mark.slow) if _is_row(name) else name for name in engine.recipe_names()
]


@pytest.mark.filterwarnings("ignore:.*(no attributes|fewer than 3 samples|no joints.json)")
@pytest.mark.parametrize("name", ROWS)
def test_two_steps_and_an_evaluation(name, tiny, request, tmp_path):
    full = engine.load_recipe(name)
    roots = [request.getfixturevalue(f"{each.name}_root") for each in full.datasets]
    several = [f"batch.p={len(roots)}", *(f"dataset.{n}.root={root}" for n, root in enumerate(roots))]
    smaller = ["model.split=layer1", "model.part_dim=8"] if full.model["name"] == "stal" else []
    if full.model["name"] == "tfclip":
        pytest.importorskip("timm")
        vit = "{depth: 1, embed_dim: 48, num_heads: 2, patch_size: 16}"
        smaller += ["model.backbone=timm:vit_tiny_patch16_224", f"model.backbone_options={vit}"]
        smaller += ["model.projected=16", "train.precision=no"]
    smaller += several if full.also else [f"dataset.root={roots[0]}"]
    recipe = engine.load_recipe(name, [*tiny, *smaller])
    result = engine.train(recipe, tmp_path / "run", quiet=True)

    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= 2
    weights = {name: getattr(recipe.loss, name) for name in TERMS}
    for line in steps:
        total = sum(weight * line[name] for name, weight in weights.items() if weight)
        assert math.isclose(line["loss"], total, rel_tol=1e-5)
        assert all((name in line) == (weight > 0) for name, weight in weights.items())
        assert ("dvdp" in line) == recipe.loss.dvdp
    if recipe.loss.dvdp:  # the command draws, here for a run that is finished
        command = ["train", name, *tiny, *smaller, "--out", str(tmp_path / "run"), "--json"]
        assert CliRunner().invoke(application(), command).exit_code == 0
        assert (tmp_path / "run" / "dvdp.png").is_file()
    if recipe.loss.attributes:
        sizes = model_of(recipe, 4, start_weights=False).attribute_sizes
        names = [name for stream in sizes.values() for name in stream]
        assert [list(row["attributes"]) for row in result["rows"]] == [names]
    assert [row["frames"] for row in result["rows"]] == recipe.eval.frames * len(roots)
    assert all(0 < row["mAP"] <= 1 and row["valid_queries"] > 0 for row in result["rows"])
    published = list(recipe.paper.rows) or recipe.eval.frames * len(recipe.paper.sets)
    assert [row["frames"] for row in result["rows"] if "paper_percent" in row] == published
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
