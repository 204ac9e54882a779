"""Adaptation without labels: what it writes, what it must not read, resuming, and bad input."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vreid_ext import engine
from vreid_ext.data import TrackletDataset, mars, registry, write_labels
from vreid_ext.data.labels import relabeled
from vreid_ext.data.records import DatasetError
from vreid_ext.engine import adapt as module
from vreid_ext.engine.adapt import adapt
from vreid_ext.engine.checkpoint import checkpoints
from vreid_ext.engine.runlog import RunLog
from vreid_ext.models import TrainingOutput, register_model

pytest.importorskip("sklearn")

SETTINGS = [
    "adapt.rounds=2",
    "adapt.k1=4",
    "adapt.k2=2",
    "adapt.min_samples=2",
    "adapt.eps=0.7",
    "optim.lr=1e-3",
    "batch.p=2",
]


def other_persons(root, *, seed: int = 0) -> TrackletDataset:
    """MARS with wrong persons of the training tracklets."""
    data = mars(root)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed)).tolist()
    train = [replace(item, pid=data.train[n].pid) for item, n in zip(data.train, order, strict=True)]
    return replace(data, train=train)


def unknown_persons(root) -> TrackletDataset:
    """MARS as a video without names: each tracklet is a person of its own."""
    train = [replace(item, pid=number) for number, item in enumerate(mars(root).train)]
    return TrackletDataset("unknown", str(root), train, train, train, "no persons")


@pytest.fixture(scope="module", autouse=True)
def datasets():
    """Registers the data sets of this file, which other tests must not see."""
    registered = {
        "mars_with_other_persons": other_persons,
        "mars_of_unknown_persons": unknown_persons,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in registered.items():
            patch.setitem(registry._datasets._factories, name, builder)
        yield


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Twelve rendered persons, six of them for training, from four cameras."""
    from vreid_ext.data.synth import synthesize

    return synthesize(
        tmp_path_factory.mktemp("people") / "mars", ids=12, cameras=4, tracklets=1, frames=3, size=(32, 16)
    )


@register_model("two_layers")
class TwoLayers(nn.Module):
    """Batch statistics, and a feature of the evaluation that is not that of the triplet loss."""

    feature_dim = 16

    def __init__(self, num_classes):
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 16, 2))
        self.bn = nn.BatchNorm1d(16)
        self.classifier = nn.Linear(16, num_classes)

    def forward(self, clips, valid=None):
        feature = self.embed(clips.flatten(0, 1)).mean((2, 3)).unflatten(0, clips.shape[:2]).mean(1)
        compared = self.bn(feature)
        if self.training:
            return TrainingOutput(self.classifier(compared), feature, {}, {}, compared)
        return compared


@pytest.fixture(scope="module")
def source(mars_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (folder / "recipe.yaml").write_text(
        f"""
        dataset: {{name: mars, root: "{mars_root}", options: {{gallery: with_query}}}}
        model: {{name: two_layers}}
        input: {{height: 32, width: 16, frames: 2}}
        batch: {{p: 2, k: 2}}
        train: {{epochs: 2, workers: 0}}
        eval: {{frames: [2]}}
        """
    )
    engine.train(engine.load_recipe(folder / "recipe.yaml"), folder / "run", quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def adapted(source, people, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapted") / "out"
    seen = []
    result = adapt(source, [*SETTINGS, f"dataset.root={people}"], out, quiet=True, report=seen.append)
    return out, result, seen


def written(out):
    """All files that do not contain the paths of their folder, as bytes by name."""
    (checkpoint,) = (out / "checkpoints").iterdir()
    labels = {path.parent.name: path.read_bytes() for path in out.glob("rounds/*/labels.json")}
    logs = {f"{path.parent.name}/log": path.read_bytes() for path in out.glob("rounds/*/log.jsonl")}
    figures = {name: (out / name).read_bytes() for name in ("before.json", "after.json", "result.json")}
    return {**labels, **logs, **figures, "weights": (checkpoint / "weights.safetensors").read_bytes()}


def test_a_model_is_adapted_and_compared(adapted, source, people):
    out, result, seen = adapted
    assert [each["round"] for each in seen] == [0, 1]
    assert seen == result["rounds"]
    for facts in seen:
        assert facts["tracklets"] == 24
        assert facts["clusters"] >= 2
        assert 0 <= facts["scores"]["precision"] <= 1
        assert facts["scores"]["persons"] == 6
    (difference,) = result["differences"]
    assert (difference["label"], difference["to"]) == ("after", "before")
    assert difference["mAP"]["value"] == pytest.approx(result["rows"][0]["mAP"] - result["before"][0]["mAP"])
    assert json.loads((out / "result.json").read_text()) == result
    before = engine.evaluate_checkpoint(source, [f"dataset.root={people}"], out=out.parent / "again.json")
    assert before["rows"][0]["mAP"] == result["before"][0]["mAP"]
    # The folder can be used like that of a run.
    after = engine.evaluate_checkpoint(out, out=out.parent / "after.json")
    assert after["rows"][0]["mAP"] == result["rows"][0]["mAP"]
    weights = [load_file(checkpoints(run)[-1] / "weights.safetensors") for run in (source, out)]
    assert not torch.equal(weights[0]["embed.0.weight"], weights[1]["embed.0.weight"])
    assert weights[0]["classifier.weight"].shape == (4, 16)
    assert not list(out.glob("rounds/*/checkpoints"))


def test_a_finished_adaptation_is_read(adapted, source, people, monkeypatch):
    out, result, _ = adapted
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trains again"))
    assert adapt(source, [*SETTINGS, f"dataset.root={people}"], out, quiet=True) == result


def test_the_persons_of_the_training_tracklets_are_not_used(adapted, source, people, tmp_path):
    out, result, _ = adapted
    settings = [*SETTINGS, "dataset.name=mars_with_other_persons", f"dataset.root={people}"]
    settings.append("dataset.options.gallery=null")
    other = adapt(source, settings, tmp_path / "out", quiet=True)
    assert written(tmp_path / "out")["weights"] == written(out)["weights"]
    assert other["rows"][0]["mAP"] == result["rows"][0]["mAP"]
    assert [each["scores"] for each in other["rounds"]] != [each["scores"] for each in result["rounds"]]


def test_tracklets_without_known_persons(source, people, tmp_path):
    settings = [
        "dataset.name=mars_of_unknown_persons",
        "dataset.options.gallery=null",
        f"dataset.root={people}",
    ]
    result = adapt(source, [*SETTINGS, "adapt.rounds=1", *settings], tmp_path / "out", quiet=True)
    assert result["rows"] == []
    assert "differences" not in result
    assert "scores" not in result["rounds"][0]
    assert len(checkpoints(tmp_path / "out")) == 1


class Killed(BaseException):
    pass


def test_an_adaptation_stopped_over_and_over_ends_with_the_same_bits(
    adapted, source, people, tmp_path, monkeypatch
):
    """Stopped before each of the steps that write, and in the trainings."""
    out = tmp_path / "out"
    arguments = (source, [*SETTINGS, f"dataset.root={people}"], out)
    steps = [
        (module, "write_json"),
        (module, "write_figures"),
        (module, "write_labels"),
        (module, "save_checkpoint"),
        (module, "train"),
        (RunLog, "write"),
        (module, "compare_runs"),
    ]
    for owner, name in steps:
        for times in (0, 1):
            original, left = getattr(owner, name), iter(range(times))

            def stops(*args, original=original, left=left, **values):
                if next(left, None) is None:
                    raise Killed
                return original(*args, **values)

            with monkeypatch.context() as patch:
                patch.setattr(owner, name, stops)
                try:
                    adapt(*arguments, quiet=True)
                except Killed:
                    continue
                break
    adapt(*arguments, quiet=True)
    wanted = written(adapted[0])
    assert written(out).keys() == wanted.keys()
    assert [name for name, value in written(out).items() if value != wanted[name]] == []


def test_the_command_prints_rounds_and_gain(vreid, adapted, source, people, tmp_path, monkeypatch):
    out, result, _ = adapted
    arguments = ("adapt", source, *SETTINGS, f"dataset.root={people}", "--out")
    code, output, errors = vreid(*arguments, tmp_path / "new")
    assert code == 0, errors
    facts = result["rounds"][0]
    assert f"round 0: {facts['clusters']} clusters, {facts['noise']} of 24 tracklets in none" in output
    assert "6 persons, ARI" in output
    assert "after minus before: mAP" in output
    code, output, errors = vreid(*arguments, out, "--json")
    assert code == 0, errors
    assert json.loads(output) == result | {"run": str(out)}
    code, _, errors = vreid(*arguments, tmp_path / "other", "adapt.eps=2")
    assert (code, errors.count("\n")) == (1, 1)
    assert "adapt.eps: expected above 0 and below 1, got 2" in errors
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, _, errors = vreid(*arguments, tmp_path / "other")
    assert code == 1
    assert "clusters need scikit-learn: pip install 'vreid-ext[cluster]'" in errors


def test_noise_is_dropped_or_its_own_class(source, people, tmp_path):
    classes = {}
    for noise in ("own", "drop"):
        out = tmp_path / noise
        settings = [*SETTINGS, "adapt.rounds=1", "adapt.min_samples=4", f"adapt.noise={noise}"]
        facts = adapt(source, [*settings, f"dataset.root={people}"], out, quiet=True)["rounds"][0]
        labels = json.loads((out / "rounds" / "00" / "labels.json").read_text())["labels"]
        classes[noise] = len(set(labels.values()))
        assert len(labels) == 24 - facts["noise"] * (noise == "drop")
        assert classes[noise] == facts["clusters"] + facts["noise"] * (noise == "own")
    assert classes["own"] > classes["drop"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["adapt.k1=24"], r"^adapt.k1: expected a number below the 24 training tracklets of mars, got 24"),
        (["adapt.eps=1"], r"adapt.eps: expected above 0 and below 1, got 1"),
        (["adapt.eps=0"], r"adapt.eps: expected above 0 and below 1, got 0"),
        (
            ["adapt.eps=1e-6", "adapt.min_samples=9"],
            r"^round 0: adapt.eps: expected .* all 24 items are noise; quantiles of",
        ),
        (["adapt.eps=0.999", "adapt.min_samples=1", "adapt.k1=20"], r"at least batch.p = 2 clusters, got 1 "),
        (["adapt.method=kmeans"], r"adapt.method"),
        (["adapt.epsilon=1"], r"unknown key 'adapt.epsilon'; nearest known key: 'adapt.eps'"),
        (["dataset.root=null"], r"^dataset.root: "),
    ],
)
def test_bad_settings_write_no_run(source, people, tmp_path, changes, message):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=message):
        adapt(source, [*SETTINGS, f"dataset.root={people}", *changes], out, quiet=True)
    assert not list(out.glob("rounds/*"))
    assert not (out / "result.json").exists()


def test_another_adaptation_in_the_folder_is_an_error(adapted, source, people, mars_root, tmp_path):
    out, _, _ = adapted
    with pytest.raises(ValueError, match=r"^out: expected the same adaptation.*adapt.eps: 0.7, 0.5"):
        adapt(source, [*SETTINGS, f"dataset.root={people}", "adapt.eps=0.5"], out)
    with pytest.raises(ValueError, match=r"^out: expected the same adaptation.*checkpoint: "):
        adapt(out, [*SETTINGS, f"dataset.root={people}"], out)
    with pytest.raises(ValueError, match=r"^out: expected a new or empty folder"):
        adapt(source, [*SETTINGS, f"dataset.root={people}"], source)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^out: expected a folder, got the file"):
        adapt(source, SETTINGS, tmp_path / "file")


def test_models_that_cannot_be_adapted(source, tmp_path):
    @register_model("with_a_distance")
    class WithADistance(TwoLayers):
        def distance(self, a, b):
            return torch.cdist(a, b)

    changes = ["model.name=with_a_distance", "train.epochs=1"]
    recipe = engine.load_recipe(source.parent / "recipe.yaml", changes)
    engine.train(recipe, tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match=r"^checkpoint: .*'with_a_distance' with its own distance function"):
        adapt(tmp_path / "run", SETTINGS, tmp_path / "out")


def test_labels_of_a_file_replace_the_persons(people, tmp_path):
    data = mars(people)
    names = [tracklet.name for tracklet in data.train]
    write_labels(tmp_path / "labels.json", {names[0]: 5, names[3]: 5, names[1]: 0}, note="by hand")
    changed = relabeled(data, tmp_path / "labels.json")
    assert [(item.name, item.pid) for item in changed.train] == [(names[0], 5), (names[1], 0), (names[3], 5)]
    assert all(item.attributes is None for item in changed.train)
    assert (changed.query, changed.gallery) == (data.query, data.gallery)
    recipe = engine.load_recipe(
        "synth_frame", [f"dataset.root={people}", f"dataset.labels={tmp_path / 'labels.json'}"]
    )
    assert engine.build.datasets_of(recipe)[0].num_train_pids == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected labels"),
        ("[]", "expected labels"),
        ('{"format": 2, "labels": {}}', "expected format 1, got 2"),
        ('{"format": 1, "labels": {"a": -1}}', "expected labels from 0, got -1 for 'a'"),
        ('{"format": 1, "labels": {"a": true}}', "expected labels from 0, got True"),
        ('{"format": 1, "labels": {"a": "1"}}', "expected labels from 0, got '1'"),
        ('{"format": 1, "labels": {}}', "expected names of training tracklets of .*, got no label"),
        ('{"format": 1, "labels": {"a": 1}}', "got 'a', the name of 0"),
    ],
)
def test_damaged_labels(people, tmp_path, content, message):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        relabeled(mars(people), path)
    shutil.rmtree(tmp_path)
    with pytest.raises(DatasetError, match=r"labels\.json"):
        relabeled(mars(people), path)


def test_a_training_without_evaluation(source, people, tmp_path):
    """For tracklets of unknown persons there is nothing to evaluate."""
    write_labels(
        tmp_path / "labels.json", {t.name: n // 2 for n, t in enumerate(unknown_persons(people).train)}
    )
    settings = ["dataset.name=mars_of_unknown_persons", "dataset.options.gallery=null", "train.eval_every=1"]
    recipe = engine.load_recipe(
        source.parent / "recipe.yaml",
        [
            *(*settings, "train.evaluate=false", f"dataset.root={people}"),
            f"dataset.labels={tmp_path / 'labels.json'}",
        ],
    )
    result = engine.train(recipe, tmp_path / "run", quiet=True)
    assert result["rows"] == []
    assert engine.train(recipe, tmp_path / "run", quiet=True) == result
    with pytest.raises(ValueError, match="expected queries with a match"):
        engine.train(
            replace(recipe, train=replace(recipe.train, evaluate=True)), tmp_path / "other", quiet=True
        )
