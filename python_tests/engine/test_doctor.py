"""Faults that are planted in features and in a rendered set: each is found, and a clean set has none."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vreid_ext import engine
from vreid_ext.engine.doctor import CHECKS, Finding, diagnose, of_arrays, of_features, of_run
from vreid_ext.engine.doctor.subject import Subject
from vreid_ext.engine.features import export_features
from vreid_ext.features.write import store_features

PERSONS, CAMERAS = 60, 4


def people(seed=0, persons=PERSONS, width=32, noise=0.5, camera=0.2):
    """Features of persons with one tracklet in each camera: rows, pids, camids."""
    generator = torch.Generator().manual_seed(seed)
    pids = torch.arange(persons).repeat_interleave(CAMERAS)
    camids = torch.arange(len(pids)) % CAMERAS
    rows = torch.randn(persons, width, generator=generator)[pids]
    rows += noise * torch.randn(len(pids), width, generator=generator)
    rows += camera * torch.randn(CAMERAS, width, generator=generator)[camids]
    return rows, pids, camids


def examined(rows, pids, camids, check, **options) -> Finding:
    (only,) = diagnose(of_arrays(rows, pids.tolist(), camids.tolist(), **options), [check])
    return only


# Without a false alarm on clean sets. `merged` and `split` have one in 100 sets by construction.
CERTAIN = ["finite", "constant", "collapsed", "informative", "duplicates", "camera"]


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**31),
    persons=st.integers(24, 60),
    width=st.integers(12, 96),
    noise=st.floats(0.1, 0.6),
    metric=st.sampled_from(["cosine", "euclidean"]),
)
def test_clean_features_have_no_finding(seed, persons, width, noise, metric):
    rows, pids, camids = people(seed, persons, width, noise)
    subject = of_arrays(rows, pids.tolist(), camids.tolist(), metric=metric)
    assert not any(each.found for each in diagnose(subject, CERTAIN))


def test_clean_labels_have_no_finding():
    for seed in range(5):
        rows, pids, camids = people(seed)
        for check in ("merged", "split"):
            assert not examined(rows, pids, camids, check).found


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31), value=st.sampled_from([torch.nan, torch.inf, -torch.inf, 0.0]))
def test_rows_without_a_distance_are_found(seed, value):
    rows, pids, camids = people(seed)
    row = seed % len(rows)
    if value == 0:
        rows[row] = 0
    else:
        rows[row, seed % rows.shape[1]] = value
    finding = examined(rows, pids, camids, "finite")
    assert finding.evidence["first"] == [str(row)]
    assert finding.severity == "error"
    findings = diagnose(of_arrays(rows, pids.tolist(), camids.tolist()), CERTAIN)
    assert [each.check for each in findings if each.found] == ["finite"]


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31), dead=st.integers(4, 32))
def test_constant_dimensions_are_found(seed, dead):
    rows, pids, camids = people(seed)
    rows[:, torch.randperm(32)[:dead]] = 0.25
    finding = examined(rows, pids, camids, "constant")
    assert finding.evidence["constant"] == dead
    assert finding.severity == ("error" if dead == 32 else "warning")


def test_few_rows_do_not_show_that_a_dimension_is_dead():
    rows, pids, camids = people(persons=10)
    rows[:, :8] = 0
    assert examined(rows, pids, camids, "constant").severity == "skipped"


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_collapsed_features_are_found(seed):
    rows, pids, camids = people(seed)
    assert examined(rows + 5, pids, camids, "collapsed").severity == "warning"
    # A common vector does not change Euclidean distances.
    assert not examined(rows + 5, pids, camids, "collapsed", metric="euclidean").found
    line = rows[:, :1] * torch.randn(32, generator=torch.Generator().manual_seed(seed))
    flat = examined(line + 0.01 * rows, pids, camids, "collapsed", metric="euclidean")
    assert flat.severity == "error"
    assert flat.evidence["dimensions"] < 1.5


def test_the_mean_cosine_and_the_dimensions_are_those_of_all_pairs():
    rows, pids, camids = people(persons=20)
    evidence = examined(rows, pids, camids, "collapsed").evidence
    unit = torch.nn.functional.normalize(rows, dim=1).double()
    other = pids[:, None] != pids[None]
    assert evidence["mean_cosine"] == pytest.approx(float((unit @ unit.T)[other].mean()), abs=1e-6)
    variances = torch.linalg.eigvalsh(torch.cov(unit.T))
    assert evidence["dimensions"] == pytest.approx(
        float(variances.sum() ** 2 / variances.square().sum()), 1e-4
    )


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_labels_without_meaning_are_found(seed):
    rows, pids, camids = people(seed)
    shuffled = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
    shuffled += 0.2 * torch.randn(CAMERAS, 32, generator=torch.Generator().manual_seed(seed))[camids]
    finding = examined(shuffled, pids, camids, "informative")
    assert finding.found == (finding.evidence["p"] > 0.05)
    assert examined(rows, pids, camids, "informative").evidence["p"] == 0.005


def test_p_values_of_permutations_are_uniform():
    """Under the null distribution a share of 0.05 passes, so 95 % of meaningless sets are found."""
    values = []
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(48, 8, generator=generator)
        pids, camids = torch.arange(48) // 4, torch.arange(48) % 4
        values.append(examined(rows, pids, camids, "informative").evidence["p"])
    assert sum(value <= 0.05 for value in values) <= 5
    assert 0.3 < sum(values) / len(values) < 0.7


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_equal_features_of_two_persons_are_found(seed):
    rows, pids, camids = people(seed)
    a, b = 0, 4 * (1 + seed % (PERSONS - 1))
    rows[b] = rows[a] * (1 + 1e-6)
    rows[1] = rows[0]  # of one person
    finding = examined(rows, pids, camids, "duplicates")
    assert finding.severity == "error"
    assert [str(a), str(b)] in finding.evidence["first"]
    assert finding.groups[0].title == f"persons {int(pids[a])} and {int(pids[b])}"


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_merged_person_is_found(metric):
    """One of a hundred pairs of persons is too similar by construction of the limit."""
    hits = 0
    for seed in range(8):
        rows, pids, camids = people(seed, noise=0.3)
        a, b = 3, 4 + 7 * seed
        pids[pids == b] = a
        result = examined(rows, pids, camids, "merged", metric=metric)
        if result.found:
            hits += 1
            assert result.evidence["pids"] == [a]
            assert result.evidence["power"] > 0.9
            sides = [{number // CAMERAS for number in group.tracklets} for group in result.groups]
            assert sorted(map(tuple, sides)) == [(a,), (b,)]
    assert hits >= 7


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_split_person_is_found(metric):
    """The power says how often: persons who are similar to a third one are missed."""
    hits = 0
    for seed in range(8):
        rows, pids, camids = people(seed, noise=0.3)
        a = 7 * seed
        pids[(pids == a) & (camids >= 2)] = 1000
        result = examined(rows, pids, camids, "split", metric=metric)
        if result.found:
            hits += 1
            assert result.evidence["pids"] == [[a, 1000]]
            assert result.evidence["power"] > 0.9
    assert hits >= 7


def test_weak_features_do_not_accuse_labels():
    rows, pids, camids = people(noise=2.5)
    pids[pids == 4] = 3
    for check in ("merged", "split"):
        finding = examined(rows, pids, camids, check)
        assert finding.severity == "skipped"
        assert "% of planted faults would be found" in finding.summary
        assert finding.evidence["power"] < 0.5


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_camera_bias_is_found(seed):
    finding = examined(*people(seed, camera=1.5), "camera")
    assert finding.severity == "warning"
    assert finding.evidence["ratio"] > 1
    assert finding.evidence["predicted"] > finding.evidence["chance"] + 0.3
    assert finding.evidence["chance"] == pytest.approx(0.25)
    fair = examined(*people(seed, camera=0.0), "camera").evidence
    assert fair["ratio"] == pytest.approx(0, abs=0.1)
    assert fair["predicted"] == pytest.approx(0.25, abs=4 * fair["predicted_standard_error"] + 0.05)


def test_the_distances_of_pairs_are_those_of_all_pairs():
    rows, pids, camids = people(persons=30)
    evidence = examined(rows, pids, camids, "camera", metric="euclidean").evidence
    square = torch.cdist(rows.double(), rows.double()).square()
    person, camera = pids[:, None] == pids[None], camids[:, None] == camids[None]
    for name, pairs in (
        ("strangers_one", ~person & camera),
        ("strangers_two", ~person & ~camera),
        ("person_two", person & ~camera),
    ):
        assert evidence[name] == pytest.approx(float(square[pairs].mean()), 1e-5)


def test_distractors_and_junk_are_no_persons():
    rows, pids, camids = people()
    pids[:40] = 0
    pids[40:48] = -1
    subject = of_arrays(rows, pids.tolist(), camids.tolist(), distractor=0)
    assert subject.sample.persons == PERSONS - 12
    assert not any(each.found for each in diagnose(subject))


def test_whole_persons_are_drawn():
    rows, pids, camids = people()
    subject = of_arrays(rows, pids.tolist(), camids.tolist(), limit=101)
    assert torch.bincount(subject.sample.pids).tolist() == [CAMERAS] * 25
    assert (pids[subject.sample.number].unique(return_inverse=True)[1] == subject.sample.pids).all()
    assert not any(each.found for each in diagnose(subject))


def store(folder, rows, pids, camids, metric="cosine"):
    """A folder of features as `vreid extract` writes it."""
    tracklets = [
        {"name": str(n), "pid": int(pid), "camid": int(camid), "frames": 4, "images": str(n)}
        for n, (pid, camid) in enumerate(zip(pids, camids, strict=True))
    ]
    every = list(range(len(rows)))
    return store_features(
        folder, {"dataset.name": "people"}, tracklets,
        lambda blocks: ({"features": rows[block.start : block.stop]} for block in blocks),
        splits={"query": every, "gallery": every}, shard_rows=50, metric=metric, protocol="all",
    ).folder  # fmt: skip


def test_features_on_disk_are_those_in_memory(tmp_path):
    rows, pids, camids = people()
    stored = diagnose(of_features(store(tmp_path / "features", rows, pids, camids)))
    assert stored == diagnose(of_arrays(rows, pids.tolist(), camids.tolist()))
    assert json.dumps([each._asdict() for each in stored])
    for each in stored[-3:]:
        assert each.severity == "skipped"
        assert "give the run instead" in each.summary
    own = of_features(store(tmp_path / "own", rows, pids, camids, metric=None))
    assert {each.check for each in diagnose(own) if each.severity != "skipped"} == {"finite", "constant"}


def test_the_rows_of_a_file_are_not_read_at_once(tmp_path):
    rows, pids, camids = people()
    np.save(tmp_path / "rows.npy", rows.numpy())
    assert not any(
        each.found for each in diagnose(of_arrays(tmp_path / "rows.npy", pids.tolist(), camids.tolist()))
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"pids": [1]}, r"^pids: expected 240 entries, one for each row, got 1$"),
        ({"metric": "own"}, r"^metric: expected one of "),
        ({"limit": 0}, r"^limit: expected an int >= 1"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    rows, pids, camids = people()
    given = {"pids": pids.tolist(), "camids": camids.tolist()} | arguments
    with pytest.raises(ValueError, match=says):
        of_arrays(rows, **given)


def test_an_unknown_check_is_named():
    rows, pids, camids = people()
    with pytest.raises(ValueError, match=r"^checks: expected one of .*; did you mean 'camera'\?$"):
        diagnose(of_arrays(rows, pids.tolist(), camids.tolist()), ["cameras"])


def test_too_few_persons_are_said():
    rows, pids, camids = people(persons=2)
    severities = {
        each.check: each.severity for each in diagnose(of_arrays(rows, pids.tolist(), camids.tolist()))
    }
    assert {name for name, severity in severities.items() if severity == "ok"} == {
        "finite", "constant", "collapsed", "duplicates",
    }  # fmt: skip
    alone = diagnose(of_arrays(rows, [5] * len(rows), camids.tolist()))
    assert alone[2].summary == "needs tracklets of at least 2 persons, got 1"


def test_every_check_has_a_name_and_a_fault():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.function.__doc__
        assert check.function.__name__ == check.name


# A rendered set and a short run.


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    from vreid_ext.data.synth import synthesize

    root = synthesize(
        tmp_path_factory.mktemp("data") / "set", ids=48, cameras=2, tracklets=2, frames=2, size=(48, 24)
    )
    # Warm light: the colors of the rendered people are as often red as blue.
    change_pictures([*root.glob("bbox_*/*/*.jpg")], lambda pixels: pixels * np.array([1, 0.9, 0.6]))
    return root


def change_pictures(paths, change):
    for path in paths:
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.fromarray(np.ascontiguousarray(change(pixels)).astype(np.uint8)).save(path, quality=95)


@pytest.fixture(scope="module")
def run(rendered, tmp_path_factory):
    """A run that is long enough for the running statistics of its batch normalization."""
    settings = [
        "model.backbone=resnet18", "model.weights=none", "input.height=48", "input.width=24",
        "input.frames=2", "batch.p=8", "batch.k=2", "train.epochs=8", "train.workers=0",
        "train.eval_every=0", "schedule.warmup_epochs=1", f"dataset.root={rendered}",
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "run"
    engine.train(engine.load_recipe("synth_avg", settings), folder, quiet=True)
    return folder


@pytest.fixture
def copy(rendered, tmp_path):
    """A copy of the set to plant a fault in."""
    return shutil.copytree(rendered, tmp_path / "set")


def of(run, root, checks=None) -> dict[str, Finding]:
    findings = diagnose(of_run(run, [f"dataset.root={root}"]), checks)
    return {each.check: each for each in findings}


def test_a_rendered_set_has_no_finding(run, rendered, tmp_path):
    clean = of(run, rendered)
    assert [each.check for each in clean.values() if each.found] == []
    for name in ("pictures", "colors", "leaked_people", "leaked_pictures"):
        assert clean[name].severity == "ok"
    (features,) = export_features(run, tmp_path / "features")
    stored = {each.check: each for each in diagnose(of_features(features.folder))}
    assert stored["collapsed"] == clean["collapsed"]


def images_of(root, part="bbox_test"):
    """The images of persons, without junk and distractors."""
    return sorted(each for each in (root / part).glob("*/*.jpg") if each.parent.name not in ("00-1", "0000"))


def test_exchanged_channels_and_inverted_pictures_are_found(run, copy):
    change_pictures(images_of(copy), lambda pixels: pixels[..., ::-1])
    finding = of(run, copy, ["colors"])["colors"]
    assert finding.severity == "error"
    assert finding.evidence["best"] == "red and blue exchanged"
    assert finding.groups[0].tracklets
    change_pictures(images_of(copy), lambda pixels: 255 - pixels[..., ::-1])
    assert of(run, copy, ["colors"])["colors"].evidence["best"] == "inverted"


def test_a_picture_of_two_persons_is_found(run, copy):
    images = images_of(copy)
    first = images[0]
    other = next(path for path in reversed(images) if path.parent != first.parent)
    shutil.copyfile(first, other)
    finding = of(run, copy, ["pictures", "leaked_pictures"])
    assert finding["pictures"].severity == "error"
    assert finding["pictures"].evidence["first"] == [[str(first), str(other)]]
    assert not finding["leaked_pictures"].found
    shutil.copyfile(first, images_of(copy, "bbox_train")[0])
    finding = of(run, copy, ["pictures", "leaked_pictures"])
    assert finding["leaked_pictures"].evidence["pictures"] == 1
    assert len(finding["leaked_pictures"].groups) == 1


def test_a_person_in_training_and_test_is_found(run, rendered):
    subject = of_run(run, [f"dataset.root={rendered}"])
    count = len(subject.features)
    pid = subject.tracklets[0].pid
    subject.tracklets[count:] = [each._replace(pid=pid) for each in subject.tracklets[count:]]
    (finding,) = diagnose(subject, ["leaked_people"])
    assert finding.severity == "error"
    assert finding.evidence["first"] == [pid]
    assert finding.groups[0].tracklets == (0, count)


def test_a_model_without_statistics_is_skipped(run, rendered):
    subject = of_run(run, [f"dataset.root={rendered}"])
    for module in subject.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.track_running_stats = False
    (finding,) = diagnose(subject, ["colors"])
    assert finding.severity == "skipped"
    assert "no batch normalization" in finding.summary
    assert isinstance(subject, Subject)
