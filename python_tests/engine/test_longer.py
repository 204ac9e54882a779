"""A run made longer ends as one that had its length from the start."""

import pytest

from vreid_ext import engine

STEPS = [
    "schedule={name: step, milestones: [1], warmup_epochs: 0}",
    "optim.groups=[{parts: [backbone], lr_factor: 0.1}]",
]


def test_a_finished_run_is_made_longer_bit_for_bit(tiny_recipe, files, tmp_path):
    engine.train(tiny_recipe(*STEPS, "train.epochs=1"), tmp_path / "longer", quiet=True)
    for run in ("longer", "whole"):
        engine.train(tiny_recipe(*STEPS, "train.epochs=3"), tmp_path / run, quiet=True)
    assert files(tmp_path / "longer") == files(tmp_path / "whole")
    assert engine.load_recipe(tmp_path / "longer" / "recipe.yaml").train.epochs == 3


def test_what_cannot_be_made_longer_says_why(tiny_recipe, tmp_path):
    out = tmp_path / "run"
    engine.train(tiny_recipe("train.epochs=2"), out, quiet=True)
    kept = (out / "result.json").read_bytes()
    with pytest.raises(ValueError, match=r"^train\.epochs: expected 2 .*, got 3; .*cosine"):
        engine.train(tiny_recipe("train.epochs=3"), out, quiet=True)
    with pytest.raises(ValueError, match=r"^out: .*train\.epochs: 2, 1"):
        engine.train(tiny_recipe("train.epochs=1"), out, quiet=True)
    with pytest.raises(ValueError, match=r"^out: .*seed: 0, 1"):
        engine.train(tiny_recipe("train.epochs=2", "seed=1"), out, quiet=True)
    assert (out / "result.json").read_bytes() == kept
