"""A threshold from features to answers: chosen, saved, refused for other features, and watched for drift."""

import json

import pytest
import torch

from vreid_ext import metrics
from vreid_ext.engine.answers import answered, check_threshold
from vreid_ext.engine.calibrate import calibrate, labelled
from vreid_ext.engine.drift import Scores, drift, scores, stored_scores
from vreid_ext.engine.search import read_split, search
from vreid_ext.engine.threshold import Threshold, find_threshold, read_threshold, write_threshold
from vreid_ext.features.write import store_features

MODEL = {"weights": "a" * 64, "model": {"name": "sta"}, "eval.frames": 4}


def people(persons=40, each=4, width=8, seed=0, noise=0.5):
    generator = torch.Generator().manual_seed(seed)
    pids = torch.arange(persons).repeat_interleave(each)
    rows = torch.randn(persons, width, generator=generator)[pids]
    return rows + noise * torch.randn(len(pids), width, generator=generator), pids


def store(folder, rows, pids, model=None, metric="cosine", split=None):
    """A folder of features as `vreid extract` writes it; by default all tracklets are query and gallery."""
    tracklets = [
        {"name": f"{pid}/{n}", "pid": int(pid), "camid": n % 2, "frames": 4, "images": str(n)}
        for n, pid in enumerate(pids)
    ]
    every = list(range(len(rows)))
    return store_features(
        folder, {"dataset.name": "people", **(model or MODEL)}, tracklets,
        lambda blocks: ({"features": rows[block.start : block.stop]} for block in blocks),
        splits=split or {"query": every, "gallery": every}, shard_rows=50, metric=metric, protocol="MARS",
    ).folder  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return store(tmp_path / "features", *people())


def test_the_threshold_is_that_of_the_rate(folder):
    saved, figures = calibrate(folder, 0.01, resamples=100)
    rows, pids = people()
    alone = metrics.verification(rows, pids, torch.arange(len(rows)) % 2, fprs=(0.01,), resamples=100)
    assert (figures.genuine, figures.impostors) == (alone.genuine, alone.impostors)  # each pair once
    point = alone.point(0.01)
    assert saved["threshold"]["value"] == point.threshold.value
    assert saved["fmr"]["value"] == point.fmr.value <= 0.01
    assert saved["fnmr"]["value"] == point.fnmr.value
    threshold = read_threshold(folder)
    assert threshold.path == folder / "threshold.json"
    assert {**threshold.content, "file": str(threshold.path)} == {"format": 1, **saved}
    low, high = threshold.band
    assert low <= threshold.value <= high
    assert threshold.answer(low) == "same"
    assert threshold.answer(high) == "too close to say"
    assert threshold.answer(high + 1e-6) == "not"
    assert "threshold.json" in repr(threshold)
    assert find_threshold(folder.parent, folder).content == threshold.content
    assert find_threshold(folder.parent) is None


def test_answers_keep_the_rate_on_other_people(folder, tmp_path):
    calibrate(folder, 0.01, resamples=200)
    threshold = read_threshold(folder)
    other = store(tmp_path / "other", *people(persons=60, seed=1))
    splits = read_split(other, "query"), read_split(other, "gallery")
    check_threshold(threshold, *splits)
    lists, drifts = answered(search(*splits, top=239), *splits, threshold)
    assert drifts == []
    said = {"same": [0, 0], "not": [0, 0], "too close to say": [0, 0]}
    for number, entry in enumerate(lists):
        for item in entry["nearest"]:
            said[item["answer"]][item["pid"] == number // 4] += 1
    wrong, right = said["same"]
    assert wrong / (240 * 236) < 0.02
    assert right / (240 * 3) > 0.5
    assert sum(said["too close to say"]) > 0


def test_query_and_gallery_may_overlap(tmp_path):
    rows, pids = people()
    split = {"query": list(range(0, 160, 2)), "gallery": list(range(100))}
    folder = store(tmp_path / "f", rows, pids, split=split)
    given = labelled(read_split(folder, "query"), read_split(folder, "gallery"))
    assert given["exclude"].tolist() == [*range(0, 100, 2), *[-1] * 30]
    saved, figures = calibrate(folder, 0.01, resamples=10)
    pairs = {frozenset((q, g)) for q in split["query"] for g in split["gallery"] if q != g}
    same = [pair for pair in pairs if len({int(pids[n]) for n in pair}) == 1]
    apart = [pair for pair in same if len({n % 2 for n in pair}) == 2]
    assert (saved["genuine"], saved["impostors"]) == (len(apart), len(pairs) - len(same))
    assert [pair.cameras for pair in figures.cameras] == [(0, 0), (0, 1)]  # no query is from camera 1


def test_planted_drift_is_found(folder, tmp_path):
    """Colours that lost their meaning, modelled by features that share a component: all distances shrink."""
    calibrate(folder, 0.01, resamples=10)
    threshold = read_threshold(folder)
    rows, pids = people(persons=50, seed=2)
    for name, part, wanted in (
        ("other people", rows, set()),
        ("collapsed", rows + 2, {"best", "random"}),
        ("noise", rows + 2 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(3)), {"best"}),
    ):
        where = store(tmp_path / name, part, pids)
        splits = read_split(where, "query"), read_split(where, "gallery")
        _, drifts = answered(search(*splits, top=1), *splits, threshold)
        assert {each.kind for each in drifts} >= wanted, name
        assert bool(drifts) == bool(wanted), name
        for each in drifts:
            assert "two-sample statistic" in str(each)
            assert "\n" not in str(each)


def test_the_statistic_is_that_of_scipy():
    from scipy.stats import ks_2samp

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(n, generator=generator).round(decimals=2).tolist() for n in (70, 300))
    best, random = drift(Scores(a, a), {"best": b, "random": a}, persons=100)
    assert best.statistic == pytest.approx(ks_2samp(a, b).statistic)
    assert best.limit == pytest.approx((-torch.log(torch.tensor(0.0005)) / 2 * (1 / 70 + 1 / 100)).sqrt())
    assert random.statistic == 0
    assert not random.drifted
    assert drift(Scores([], []), {"best": b, "random": a}, persons=100) == []
    (alone, _) = drift(Scores([9.0], [9.0]), {"best": b, "random": a}, persons=100)
    assert alone.statistic == 1
    assert not alone.drifted  # a single query is never drift


def test_many_scores_are_stored_as_quantiles():
    values = torch.rand(5000, generator=torch.Generator().manual_seed(0)).tolist()
    stored = stored_scores(Scores(values, values[:3]))
    assert (len(stored["best"]), stored["random"]) == (1000, sorted(values[:3]))
    assert drift(Scores(values, []), stored, persons=5000)[0].statistic < 0.002


def test_scores_leave_out_the_query_itself(folder):
    splits = read_split(folder, "query"), read_split(folder, "gallery")
    found = scores(*splits)
    assert min(found.best) > 0
    assert min(found.random) > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": "b" * 64}, "threshold: expected one for features of weights"),
        ({"eval.frames": 8}, "threshold: expected one for features of eval.frames 8, got one for 4 in "),
        ({"input.height": 128}, "threshold: expected one for features of input.height 128, got one for null"),
    ],
)
def test_a_threshold_of_another_model_is_refused(folder, tmp_path, change, says):
    calibrate(folder, 0.01, resamples=10)
    other = store(tmp_path / "other", *people(), model={**MODEL, **change})
    with pytest.raises(ValueError, match=r"run `vreid calibrate` again$") as caught:
        check_threshold(read_threshold(folder), read_split(other, "query"))
    assert str(caught.value).startswith(says)


def test_features_of_another_dimension_or_metric_are_refused(folder, tmp_path):
    calibrate(folder, 0.01, resamples=10)
    threshold = read_threshold(folder)
    wider = store(tmp_path / "wider", *people(width=9))
    with pytest.raises(ValueError, match=r"^threshold: expected one for features of dimensions 9, got .* 8 "):
        check_threshold(threshold, read_split(wider, "gallery"))
    euclidean = store(tmp_path / "euclidean", *people(), metric="euclidean")
    with pytest.raises(ValueError, match=r'^threshold: expected one for features of metric "euclidean", got'):
        check_threshold(threshold, read_split(euclidean, "gallery"))


def test_what_cannot_be_calibrated_is_refused_and_nothing_written(tmp_path):
    rows, pids = people()
    bad = rows.clone()
    bad[7, 2] = torch.nan
    same = torch.eye(8)[:1].repeat(160, 1)
    cases = [
        (
            rows,
            pids,
            1e-6,
            r"^fmr: expected at least 0.0008 for 12480 impostor pairs .10 false .*, got 1e-06",
        ),
        (rows, pids, 1.5, r"^fmr: expected a rate between 0 and 1, exclusive, got 1.5"),
        (rows, torch.arange(160), 0.1, r"^pids: expected a genuine pair"),
        (rows, torch.zeros(160), 0.1, r"^pids: expected an impostor pair"),
        (bad, pids, 0.1, r"^features: expected finite rows .*, the first is 7"),
        (same, pids, 0.1, r"^fmr: expected a rate of at least 1, because .* equal features, got 0.1"),
    ]
    for number, (part, labels, fmr, says) in enumerate(cases):
        folder = store(tmp_path / str(number), part, labels)
        with pytest.raises(ValueError, match=says):
            calibrate(folder, fmr, resamples=5)
        assert not (folder / "threshold.json").exists()
        assert "\n" not in says
    own = store(tmp_path / "own", rows, pids, metric=None)
    with pytest.raises(ValueError, match=r"^features: expected features with a metric"):
        calibrate(own, 0.1)


def test_a_threshold_is_saved_where_it_is_asked_for(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert calibrate(folder, 0.1, out=run, resamples=5)[0]["file"] == str(run / "threshold.json")
    assert calibrate(folder, 0.1, out=tmp_path / "new" / "t.json", resamples=5)[0]["file"].endswith("t.json")
    assert read_threshold(tmp_path / "new" / "t.json").content == read_threshold(run).content
    assert not (folder / "threshold.json").exists()


def test_a_damaged_file_is_named(folder, tmp_path):
    calibrate(folder, 0.1, resamples=5)
    file = folder / "threshold.json"
    whole = json.loads(file.read_text())
    file.write_text(file.read_text()[:-9])
    with pytest.raises(ValueError, match=r"^threshold: expected JSON in '.*threshold.json', got: "):
        read_threshold(file)
    for key in ("threshold", "scores", "dimensions", "persons", "model", "metric", "fmr"):
        write_threshold(file, {name: value for name, value in whole.items() if name != key})
        with pytest.raises(
            ValueError, match=r"^threshold: expected a file of `vreid calibrate`, .* entries$"
        ):
            read_threshold(file)
    for wrong in ([], None, {"threshold": {"value": "x", "low": 0, "high": 0}}, {"persons": 0}):
        file.write_text(json.dumps({**whole, **wrong} if isinstance(wrong, dict) else wrong))
        with pytest.raises(ValueError, match=r"^threshold: expected a file of `vreid calibrate`"):
            read_threshold(file)
    file.write_text(json.dumps({**whole, "format": 2}))
    with pytest.raises(ValueError, match=r"^threshold: expected format 1 in .*, got 2$"):
        read_threshold(file)
    with pytest.raises(
        ValueError, match=r"^threshold: expected a file of `vreid calibrate`, .* which is none"
    ):
        read_threshold(tmp_path / "nothing.json")
    assert isinstance(Threshold(file, whole).value, float)
