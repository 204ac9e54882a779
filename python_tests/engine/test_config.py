import json

import pytest

from vreid_ext.engine import load_recipe, recipe_names
from vreid_ext.engine.config import differences, recipe_from_dict


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
        ("batch.p=0", "batch.p: got 0, wanted at least 1"),
        ("optim.name=adamax", "optim.name.*adamax.*sgd"),
        ("input.flip=2", "input.flip: got 2"),
        ("eval.frames=[]", "eval.frames"),
        ("input=3", "input: got 3, wanted a group"),
        ("paper.rows=3", "paper.rows: got 3, wanted rows"),
        ("optim.lr", "wanted key=value"),
    ],
)
def test_a_bad_override_names_key_and_value(override, says):
    with pytest.raises(ValueError, match=says):
        load_recipe("sta_mars", [override])


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="no recipe 'sta_marz'; nearest: sta_mars"):
        load_recipe("sta_marz")


def test_a_file_may_start_from_other_files_and_from_the_package(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: sta_dukev\noptim: {lr: 0.1}\n")
    (tmp_path / "theirs.yaml").write_text("base: mine.yaml\nseed: 7\n")
    recipe = load_recipe(tmp_path / "theirs.yaml")
    assert (recipe.name, recipe.dataset.name, recipe.optim.lr, recipe.seed) == ("theirs", "dukev", 0.1, 7)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "got a list, wanted keys and values"),
        ("-1", "got a single value, wanted keys and values"),
        ('"000000"', "got a single value, wanted keys and values"),
        (b"name: \xe9\xff\n", "not valid YAML: 'utf-8' codec"),
        ("name: \0\n", "not valid YAML"),
        (
            "name: !!python/object/apply:os.system ['exit']\n",
            "not valid YAML: could not determine a constructor",
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
        ("model: []\n", r"model: got \[\], wanted keys and values"),
        ("model: null\n", "model: got None, wanted keys and values"),
        ("eval: {frames: [[]]}\n", r"eval.frames: got \[\[\]\], wanted a list of int"),
        ("stages: [{freeze: [[]]}]\n", r"stages\[0\].freeze: got"),
        ("eval: {frames: {}}\n", "incompatible container types"),
        ("base: recipe.yaml\n", "base: starts from itself"),
        ("base: 3\n", "base: got 3, wanted the name"),
        ("base: [1]\n", r"base: got \[1\], wanted the name"),
        ("base: {a: 1}\n", "base: got .*, wanted the name"),
        ("seed: ${nope}\n", "seed: Interpolation key 'nope' not found"),
        ("name: ${a\n", "name: "),
        ("name: ${x:1}\n", "name: Unsupported interpolation type x"),
        ("optim: {lr: .inf}\n", "optim.lr: got inf, wanted a finite number"),
        (f"optim: {{lr: 1{'0' * 400}}}\n", "optim.lr: got 1000.*, wanted a number below"),
        (f"seed: 1{'0' * 5000}\n", "not valid YAML"),
        ("paper: {rows: {x: {mAP: 1}}}\n", "paper.rows: got .*, wanted rows by their frames"),
        ("paper: {rows: {.inf: {mAP: 1}}}\n", "paper.rows: got .*, wanted rows by their frames"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(content, says, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=says) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="no file"):
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
