"""A list of data sets: what a recipe says of it, one model trained on all, tested on each."""

import json

import pytest

from vreid_ext import engine
from vreid_ext.data import JointBatchSampler, Tracklet, TrackletDataset, join_training, set_names
from vreid_ext.engine.config import recipe_from_dict
from vreid_ext.engine.recipe import differences


def tracklet(pid, name):
    return Tracklet(paths=(f"{name}.jpg",), pid=pid, camid=1, name=name)


def dataset(name, *pids):
    train = [tracklet(pid, f"{pid}-{n}") for pid in pids for n in range(2)]
    return TrackletDataset(name, f"/{name}", train, [], [], protocol="none")


def test_persons_of_one_pid_in_two_sets_are_kept_apart():
    joined = join_training([dataset("a", 7, 1), dataset("b", 1, 7, 9)])
    assert [item.pid for item in joined.train] == [1, 1, 0, 0, 2, 2, 3, 3, 4, 4]
    assert joined.num_train_pids == 5
    assert {item.name.split("/")[0] for item in joined.train[:4]} == {"a"}
    assert len({item.name for item in joined.train}) == len(joined.train)
    assert set_names([dataset("a"), dataset("b"), dataset("a")]) == ["a-1", "b", "a-2"]


def test_batches_have_as_many_persons_of_each_set():
    pids = [[0, 0, 1, 1, 2, 2], [5] * 3 + [6] * 3 + [n for n in range(7, 17) for _ in range(2)]]
    first = len(pids[0])
    sampler = JointBatchSampler(pids, 4, 2, seed=1)
    assert len(sampler) == 12 // 2
    batches = list(sampler)
    assert len(batches) == len(sampler)
    for batch in batches:
        assert len(batch) == 8
        sets = [[index for index, _ in batch if (index >= first) == second] for second in (False, True)]
        assert [len({pids[n][i - n * first] for i in part}) for n, part in enumerate(sets)] == [2, 2]
    assert {pids[1][i - first] for batch in batches for i, _ in batch if i >= first} == set(pids[1])

    halves = [list(JointBatchSampler(pids, 4, 2, seed=1, num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(batch) for batch in batches]
    again = JointBatchSampler(pids, 4, 2, seed=1)
    again.set_epoch(1)
    assert list(again) != batches
    with pytest.raises(ValueError, match=r"^p: expected a multiple of the 2 data sets, got 3"):
        JointBatchSampler(pids, 3, 2)


def test_a_list_is_read_written_and_overridden(tmp_path):
    (tmp_path / "base.yaml").write_text("model: {name: sta}\n")
    path = tmp_path / "two.yaml"
    path.write_text("base: base.yaml\ndataset:\n  - {name: prid}\n  - {name: mars, root: /m}\n")
    recipe = engine.load_recipe(path, ["dataset.0.root=/p", "dataset.1.options.gallery=with_query"])
    assert [(each.name, each.root) for each in recipe.datasets] == [("prid", "/p"), ("mars", "/m")]
    assert recipe.datasets[1].options == {"gallery": "with_query"}
    assert isinstance(recipe.to_dict()["dataset"], list)
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    recipe.save(tmp_path / "saved.yaml")
    saved = engine.load_recipe(tmp_path / "saved.yaml")
    assert differences(saved, recipe) == []
    other = engine.load_recipe(path, ["dataset.0.root=/q", "dataset.1.options.gallery=with_query"])
    assert differences(other, recipe, ignore=["dataset.root"]) == []
    assert differences(other, recipe) == ["dataset.0.root: '/q', '/p'"]

    single = recipe_from_dict(recipe.to_dict(), ["dataset.name=ilids", "dataset.root=/i"])
    assert [(each.name, each.root) for each in single.datasets] == [("ilids", "/i")]
    assert isinstance(single.to_dict()["dataset"], dict)


def test_a_file_changes_the_data_sets_of_its_base_as_an_override_does(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "two.yaml").write_text(
        "dataset:\n  - {name: prid, root: p}\n  - {name: mars, root: m}\n"
    )
    path = tmp_path / "mine.yaml"

    def sets(text):
        path.write_text(text)
        return [(each.name, each.root) for each in engine.load_recipe(path).datasets]

    theirs = [("prid", str(tmp_path / "a" / "p")), ("mars", str(tmp_path / "a" / "m"))]
    assert sets("base: [sta_mars, a/two.yaml]\n") == theirs
    mine = "base: a/two.yaml\ndataset: {1: {root: mine}}\n"
    assert sets(mine) == [theirs[0], ("mars", str(tmp_path / "mine"))]
    assert sets("base: a/two.yaml\ndataset: {name: ilids}\n") == [("ilids", None)]
    assert sets("base: drsta_images\ndataset: [{name: cuhk03}, {name: market1501}]\n") == [
        ("cuhk03", None),
        ("market1501", None),
    ]
    with pytest.raises(ValueError, match=r"^dataset\.2: expected the index of one of the 2"):
        sets("base: a/two.yaml\ndataset: {2: {root: mine}}\n")


def test_texts_and_paths_of_a_list_are_those_of_a_single_set(tmp_path, monkeypatch):
    path = tmp_path / "two.yaml"
    path.write_text("dataset:\n  - {name: prid, root: 2024_01_15}\n  - {name: mars, joints: sub/j.json}\n")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    recipe = engine.load_recipe(path, ["dataset.1.root=2024_01_15 #2", "dataset.1.options.attributes=a.csv"])
    first, second = recipe.datasets
    assert first.root == str(tmp_path / "2024_01_15")
    assert second.joints == str(tmp_path / "sub/j.json")
    assert second.root == str(work / "2024_01_15 #2")
    assert second.options == {"attributes": str(work / "a.csv")}
    recipe.save(tmp_path / "saved.yaml")
    assert engine.load_recipe(tmp_path / "saved.yaml").datasets == recipe.datasets


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("[]", [], r"dataset: expected a data set or a list of data sets, got \[\]"),
        ("[mars]", [], r"dataset: expected a data set or a list of data sets, got \['mars'\]"),
        ("[{name: prid, rot: x}]", [], r"rot"),
        (
            "[{name: prid}, {name: mars}]",
            ["dataset.root=/x"],
            r"^dataset\.root: expected the index of one of the 2",
        ),
        (
            "[{name: prid}, {name: mars}]",
            ["dataset.2.root=/x"],
            r"^dataset\.2: expected the index of one of the 2",
        ),
        (
            "[{name: prid}, {name: mars}]",
            ["dataset.1.black_box=-1"],
            r"^dataset\.1\.black_box: expected at least 0, got -1",
        ),
        ("[{name: prid}, {name: mars, rot: x}]", [], r"unknown key 'dataset\.1\.rot'; .* 'dataset\.1\.root'"),
        ("[{name: prid}, {name: mars, black_box: a}]", [], r"dataset\.1\.black_box: Value 'a'"),
    ],
)
def test_a_bad_list_names_the_key(tmp_path, text, overrides, says):
    path = tmp_path / "bad.yaml"
    path.write_text(f"model: {{name: sta}}\ndataset: {text}\n")
    with pytest.raises(ValueError, match=says):
        engine.load_recipe(path, overrides)


@pytest.fixture
def joint(tiny, prid_root, ilids_root, mars_root):
    def load(*overrides):
        roots = [f"dataset.{n}.root={root}" for n, root in enumerate((prid_root, ilids_root, mars_root))]
        small = ["batch.p=3", "model.regions=2", "model.hidden=4", "stages=[]", "optim.lr=0.01"]
        return engine.load_recipe("drsta_joint_temporal", [*tiny, *small, *roots, *overrides])

    return load


def test_one_model_is_trained_on_three_sets_and_tested_on_each(joint, files, tmp_path):
    recipe = joint("train.epochs=2", "eval.rerank=true", "paper.rerank=true")
    result = engine.train(recipe, tmp_path / "run", quiet=True)
    assert [row["dataset"] for row in result["rows"]] == ["prid", "ilids", "mars"]
    assert result["dataset"] == "prid, ilids, mars"
    assert [row["paper_percent"]["rank1"] for row in result["rows"]] == [88.4, 69.7, 77.1]
    assert [row["valid_queries"] > 0 for row in result["rows"]] == [True] * 3
    assert "PRID2011" in result["rows"][0]["protocol"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"step", "epoch", "eval-prid", "eval-ilids", "eval-mars"}

    again = engine.evaluate_checkpoint(tmp_path / "run", features=tmp_path / "features")
    assert again["rows"] == result["rows"]
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == ["ilids", "mars", "prid"]
    alone = engine.evaluate_checkpoint(
        tmp_path / "run", ["dataset.name=prid", f"dataset.root={recipe.dataset.root}"]
    )
    same = {key: value for key, value in result["rows"][0].items() if key in alone["rows"][0]}
    assert {key: alone["rows"][0][key] for key in same if key != "paper_percent"} == {
        key: value for key, value in same.items() if key != "paper_percent"
    }


def test_sets_that_cannot_go_together_are_refused(joint, tmp_path):
    cases = {
        r"^p: expected a multiple of the 3 data sets, got 4": "batch.p=4",
        r"^dataset\.1\.root: expected the folder of 'ilids', got none": "dataset.1.root=null",
        r"^dataset\.2\.black_box: expected the size and seed of dataset\.0": "dataset.2.black_box=5",
    }
    for says, change in cases.items():
        with pytest.raises(ValueError, match=says):
            engine.train(joint(change), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    recipe = joint()
    recipe.also[0] = recipe.dataset
    with pytest.raises(ValueError, match=r"^dataset\.1: expected different data sets, got 'prid' twice"):
        engine.train(recipe, tmp_path / "run", quiet=True)
