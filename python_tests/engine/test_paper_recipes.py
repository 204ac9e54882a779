"""Recipes against what the papers state (`paper_table`): one that drifts fails."""

import runpy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from vreid_ext import engine
from vreid_ext.losses import CrossEntropyLoss, TripletLoss
from vreid_ext.models import STA

ROOT = Path(__file__).parents[2]
load = cache(engine.load_recipe)
TABLE = runpy.run_path(str(Path(__file__).with_name("paper_table.py")))
RECIPES, TABLES, stated, figures = (TABLE[name] for name in ("RECIPES", "TABLES", "stated", "figures"))


def value_of(recipe: engine.Recipe, key: str):
    """The value of a dotted key; None for an option of the model that is left at its default."""
    node = recipe.to_dict()
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else node
    return node


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_its_paper_states(name):
    recipe = load(name)
    odd = [
        f"{key}: expected {value!r} ({source}), got {value_of(recipe, key)!r}"
        for key, value, source in stated(name)
        if value_of(recipe, key) != value
    ]
    assert not odd, "\n".join(odd)
    if recipe.also:
        assert not recipe.paper.rows
        wanted = {each.name: figures(name, each.name) for each in recipe.datasets}
        assert {each: {6: row} for each, row in recipe.paper.sets.items()} == wanted
    else:
        assert recipe.paper.rows == figures(name, recipe.dataset.name)


def test_every_recipe_is_in_the_table():
    packaged = {name for name in engine.recipe_names() if not name.startswith(TABLE["OTHERS"])}
    assert packaged == RECIPES.keys()
    # A recipe without a published figure needs no citation, one with it has one.
    for name in engine.recipe_names():
        paper = load(name).paper
        assert bool(paper.source) == bool(paper.rows or paper.sets) == (name in RECIPES), name


def test_every_row_of_the_tables_has_a_recipe():
    used = {row for entry in RECIPES.values() for row in entry.rows} | {
        ("STA 2", f"N={n}") for n in (2, 6, 8)
    }
    printed = {(table, label) for table, entry in TABLES.items() for label in entry.rows}
    assert used == printed


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("stal_")])
def test_stal_makes_as_many_steps_as_the_paper_has_iterations(name):
    recipe = load(name)
    steps, iterations = TABLE["STAL_ITERATIONS"][recipe.dataset.name]
    assert 0 <= steps * recipe.train.epochs - iterations < steps


class Maps(nn.Module):
    """Stands for a ResNet-50: the ReLU maps that it is given are those of every frame."""

    out_channels = 2048

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, images):
        return self.maps


@pytest.mark.parametrize("name", ["sta_mars", "sta_dukev"])
def test_the_inter_frame_term_is_five_to_ten_per_cent_of_the_gradient_at_the_start(name):
    recipe = load(name)
    torch.manual_seed(0)
    clips, frames = recipe.batch.k * 4, recipe.input.frames  # the share does not depend on the persons
    maps = torch.randn(clips * frames, 2048, recipe.input.height // 16, recipe.input.width // 16).relu_()
    maps.requires_grad_()
    model = STA(625, backbone=Maps(maps), blocks=recipe.model["blocks"]).train()
    output = model(torch.zeros(clips, frames, 3, 1, 1))
    labels = torch.arange(4).repeat_interleave(recipe.batch.k)
    loss = recipe.loss.softmax * CrossEntropyLoss()(output.logits, labels)
    loss = loss + recipe.loss.triplet * TripletLoss(recipe.loss.margin)(output.feature, labels)
    (main,) = torch.autograd.grad(loss, maps, retain_graph=True)
    (term,) = torch.autograd.grad(recipe.loss.inter_frame * output.extras["inter_frame"], maps)
    assert 0.05 < (term.norm() / main.norm()).item() < 0.10


def test_the_page_is_current():
    page = runpy.run_path(str(ROOT / "docs" / "make_papers_page.py"))["page"](load)
    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == page
