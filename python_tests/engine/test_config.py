import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args

import pytest

from vreid_ext.engine import Recipe, load_recipe, recipe_names
from vreid_ext.engine.config import recipe_from_dict
from vreid_ext.engine.recipe import differences


def test_overrides_have_the_last_word_and_keep_their_types():
    recipe = load_recipe(
        "sta_mars", ["optim.lr=1e-2", "schedule.milestones=[1,2]", "eval.frames=8", "model.blocks=2"]
    )
    assert recipe.optim.lr == 0.01
    assert recipe.schedule.milestones == [1, 2]
    assert recipe.eval.frames == [8]
    assert recipe.model["blocks"] == 2


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.epoch=3", "nearest known key: 'train.epochs'"),
        ("batc.p=3", "nearest known key: 'batch.p'"),
        ("batch.p=many", "batch.p.*many"),
        ("batch.p=0", "batch.p: expected at least 1, got 0"),
        ("optim.name=adamax", "optim.name.*adamax.*sgd"),
        ("input.flip=2", "input.flip: expected at least 0 and at most 1, got 2"),
        ("eval.frames=[]", "eval.frames"),
        ("input=3", "input: expected a group of keys, .*, got 3"),
        ("paper.rows=3", "paper.rows: expected a mapping .*, got 3"),
        ("optim.lr", "override: expected key=value, got 'optim.lr'"),
    ],
)
def test_a_bad_override_names_key_and_value(override, says):
    with pytest.raises(ValueError, match=says):
        load_recipe("sta_mars", [override])


def numbers(group, prefix=""):
    """(key, field) of every number of a recipe, those in lists and dicts included."""
    for entry in fields(group):
        if entry.name == "also":  # further data sets (test_joint.py)
            continue
        kinds = {entry.type, *get_args(entry.type)}
        for kind in filter(is_dataclass, kinds):
            index = "" if kind is entry.type else "[0]"
            yield from numbers(kind, f"{prefix}{entry.name}{index}.")
        if kinds & {int, float} or any({int, float} & {*get_args(kind)} for kind in kinds):
            yield prefix + entry.name, entry


NUMBERS = dict(numbers(Recipe))


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_its_range_beside_its_field(key):
    bounds = NUMBERS[key].metadata["bounds"]
    assert bounds.keys() & {"at_least", "above"}, "no number of a recipe may be negative"
    low = bounds.get("above", bounds.get("at_least", 0) - 1)
    high = {"below": bounds.get("below"), "at_most": bounds.get("at_most", 0) + 1}
    for value in [low, *(high[name] for name in bounds.keys() & high.keys())]:
        row = "mars" if key == "paper.sets" else 4
        given = {"list": f"[{value}]", "dict": f"{{{row}: {{mAP: {value}}}}}"}
        text = given.get(getattr(NUMBERS[key].type, "__name__", ""), str(value))
        pair = f"{key}={text}"
        if "[0]." in key:
            group, name = key.split("[0].")
            pair = f"{group}=[{{{name}: {text}}}]"
        with pytest.raises(ValueError, match=f"^{re.escape(key)}: expected .*, got"):
            load_recipe("sta_mars", [pair])


@pytest.mark.parametrize("key", ["schedule.warmup_factor=-1", "schedule.gamma=-0.1", "loss.oim_momentum=1"])
def test_a_rate_that_would_turn_negative_is_refused(key):
    with pytest.raises(ValueError, match=f"^{key.partition('=')[0]}: expected at least 0.*, got"):
        load_recipe("sta_mars", [key])


TEXTS = (
    "2024_01_15", "12:30", "007", "cam #1", "[my] set", "{x}", "a: b", "no", "1e5", "'q'", "a=b", " b",
    "a\\${b}", "${HOME}", "&a", "./null",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["dataset.root", "dataset.joints", "dataset.options.attributes"])
def test_a_path_is_taken_as_it_is_typed(key, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("asta_mars", [f"{key}={text}"])
    assert value(recipe, key) == str(tmp_path / text)
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    recipe.save(tmp_path / "saved.yaml")
    assert differences(load_recipe(tmp_path / "saved.yaml"), recipe) == []


@pytest.mark.parametrize(
    "key", ["name", "dataset.name", "dataset.options.gallery", "model.name", "model.backbone", "paper.source"]
)
def test_a_key_for_text_takes_it_as_it_is_typed(key):
    for text in TEXTS:
        assert value(load_recipe("sta_mars", [f"{key}={text}"]), key) == text


def value(recipe, key):
    for part in key.split("."):
        recipe = recipe[part] if isinstance(recipe, dict) else getattr(recipe, part)
    return recipe


@pytest.mark.parametrize("text", ["2024_01_15", "12:30", "007", "no", "0x10", "1e5", "2024-01-15"])
def test_a_file_holds_texts_without_quotes(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"base: sta_mars\nname: {text}  # {text}\n"
        f"dataset: {{root: {text}, options: {{attributes: {text}, other: {text}}}}}\n"
        f"stages: [{{epochs: 1, freeze: [{text}]}}]\npaper: {{source: &source {text}}}\n"
    )
    recipe = load_recipe(path)
    assert (recipe.name, recipe.paper.source, recipe.stages[0].freeze) == (text, text, [text])
    assert recipe.dataset.root == recipe.dataset.options["attributes"] == str(tmp_path / text)
    assert recipe.dataset.options["other"] == {"no": False, "1e5": 1e5}.get(text, text)


def test_text_is_not_taken_for_a_number():
    assert load_recipe("sta_mars", ["batch.p=010"]).batch.p == 10
    for pair in ("train.epochs=1:30", "seed=0x10", "seed=2024-01-15"):
        with pytest.raises(ValueError, match="could not be converted to Integer"):
            load_recipe("sta_mars", [pair])


def test_a_path_is_relative_to_its_file_or_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", "data")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "one.yaml").write_text(
        "dataset: {root: set, joints: ~/j.json, options: {attributes: t.csv}}\n"
        "model: {name: sta, weights: w.pth}\n"
    )
    (tmp_path / "two.yaml").write_text("base: a/one.yaml\ndataset: {root: '${oc.env:DATA}/set'}\n")
    monkeypatch.chdir(tmp_path / "b")
    for name in ("../a/one.yaml", str(tmp_path / "a" / "one.yaml")):
        recipe = load_recipe(name, ["dataset.options.attributes=mine.csv"])
        assert Path(recipe.dataset.root).resolve() == tmp_path / "a" / "set"
        assert recipe.dataset.joints == str(tmp_path / "home" / "j.json")
        assert recipe.dataset.options["attributes"] == str(tmp_path / "b" / "mine.csv")
        assert Path(recipe.model["weights"]).resolve() == tmp_path / "a" / "w.pth"
    recipe = load_recipe(tmp_path / "two.yaml")
    assert recipe.dataset.root == str(tmp_path / "data" / "set")
    assert recipe.dataset.options["attributes"] == str(tmp_path / "a" / "t.csv")
    assert load_recipe("sta_mars", ["dataset.root=~/set"]).dataset.root == str(tmp_path / "home" / "set")
    assert load_recipe("sta_mars", ["model.weights=imagenet"]).model["weights"] == "imagenet"


@pytest.mark.parametrize("text", ["", "null"])
def test_a_key_that_may_be_empty_can_be_emptied(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: sta_mars\ndataset: {root: set}\n")
    assert load_recipe(path, [f"dataset.root={text}"]).dataset.root is None


def test_a_name_that_is_no_utf8_is_refused_by_its_key():
    with pytest.raises(ValueError, match=r"dataset.root: expected text in UTF-8, got '.*\\udce9'"):
        load_recipe("sta_mars", ["dataset.root=caf\udce9"])


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="got 'sta_marz'; nearest: sta_mars"):
        load_recipe("sta_marz")


def test_a_file_may_start_from_other_files_and_from_the_package(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: sta_dukev\noptim: {lr: 0.1}\n")
    (tmp_path / "theirs.yaml").write_text("base: mine.yaml\nseed: 7\n")
    recipe = load_recipe(tmp_path / "theirs.yaml")
    assert (recipe.name, recipe.dataset.name, recipe.optim.lr, recipe.seed) == ("theirs", "dukev", 0.1, 7)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [1\n", "invalid YAML"),
        ("- 1\n", "expected keys and values, got a list"),
        ("-1", "expected keys and values, got a single value"),
        ('"000000"', "expected keys and values, got a single value"),
        (b"name: \xe9\xff\n", "invalid YAML: 'utf-8' codec"),
        ("name: \0\n", "invalid YAML"),
        (
            "name: !!python/object/apply:os.system ['exit']\n",
            "invalid YAML: could not determine a constructor",
        ),
        ("seed: 1\nseed: 2\n", "duplicate key seed"),
        ("null: 2\n", "key"),
        ("model: {a: " + "[" * 900 + "]" * 900 + "}\n", "nested too deeply"),
        ("model: &m {name: sta, x: *m}\n", "recursive"),
        (
            "model: {x: [&a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"
            + "".join(f", &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 7))
            + "]}\n",
            "expansion exceeds",
        ),
        ("model: []\n", r"model: expected keys and values, got \[\]"),
        ("model: null\n", "model: expected keys and values, got None"),
        ("eval: {frames: [[]]}\n", r"eval.frames: expected a list of int, got \[\[\]\]"),
        ("stages: [{freeze: [[]]}]\n", r"stages\[0\].freeze: expected"),
        ("eval: {frames: {}}\n", "incompatible container types"),
        ("dataset: {? [a] : b}\n", "invalid YAML: .*unhashable key"),
        ("base: recipe.yaml\n", "base: expected no cycle"),
        ("base: 3\n", "base: expected the name .*, got 3"),
        ("base: [1]\n", r"base: expected the name .*, got \[1\]"),
        ("base: {a: 1}\n", "base: expected the name .*, got .*"),
        ("seed: ${nope}\n", "seed: Interpolation key 'nope' not found"),
        ("name: ${a\n", "name: "),
        ("name: ${x:1}\n", "name: Unsupported interpolation type x"),
        ("optim: {lr: .inf}\n", "optim.lr: expected a finite number, got inf"),
        (f"optim: {{lr: 1{'0' * 400}}}\n", "optim.lr: expected a number below .*, got 1000"),
        (f"seed: 1{'0' * 5000}\n", "invalid YAML"),
        ("paper: {rows: {x: {mAP: 1}}}\n", "paper.rows: expected a mapping .*, got {"),
        ("paper: {rows: {.inf: {mAP: 1}}}\n", "paper.rows: expected a mapping .*, got {"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(content, says, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=says) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="recipe: expected an existing file, got"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_survive_json_and_yaml(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    recipe.save(tmp_path / "recipe.yaml")
    assert differences(load_recipe(tmp_path / "recipe.yaml"), recipe) == []


def test_differences_name_the_keys_that_differ():
    a, b = load_recipe("sta_mars"), load_recipe("sta_mars", ["optim.lr=1", "train.workers=0"])
    assert differences(a, b, ignore=["train.workers"]) == ["optim.lr: 0.0003, 1.0"]


@pytest.mark.parametrize("data", ["mars", "dukev"])
def test_the_rows_of_table_1_differ_in_what_the_paper_switches(data):
    rows = ["baseline", "triplet", "average", "attention", "fusion"]
    recipes = [load_recipe(f"sta_{data}_{row}") for row in rows] + [load_recipe(f"sta_{data}")]
    switches = [
        (
            r.loss.triplet > 0,
            r.model["pooling"],
            r.model["fusion"],
            r.model["regularizer"],
            r.loss.inter_frame > 0,
        )
        for r in recipes
    ]
    assert [s[0] for s in switches] == [False, True, True, True, True, True]
    assert [s[1] for s in switches] == ["frame", "frame", "avg", "sta", "sta", "sta"]
    assert [s[2] for s in switches[3:]] == [False, True, True]
    assert [s[3:] for s in switches] == [(False, False)] * 5 + [(True, True)]
    published = [r.paper.rows[4]["mAP"] for r in recipes]
    assert published == sorted(published)
