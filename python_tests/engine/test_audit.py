"""The auditor of protocols: every line is the evaluation that it says, and says whom it is by."""

import json
from itertools import count

import numpy as np
import pytest
import torch

from vreid_ext import metrics
from vreid_ext.engine.audit import audit_features
from vreid_ext.features.write import store_features

PERSONS, CAMERAS = 8, 3


def write(folder, rows, tracklets, splits, **about):
    identity = {
        "model": {"name": "avg"},
        "weights": "w",
        "dataset.name": "own",
        "eval.sampling": "evenly",
        "eval.frames": 4,
    }
    identity |= about.pop("identity", {})
    about = {"metric": "cosine", "protocol": "own", "junk": True, "junk_tags": {}} | about
    about = {key: value for key, value in about.items() if value != "absent"}

    def embed(blocks):
        return ({"features": rows[block.start : block.stop]} for block in blocks)

    store_features(folder, identity, tracklets, embed, splits=splits, shard_rows=16, **about)
    return folder


@pytest.fixture(scope="module")
def scene():
    """Two tracklets of each person and camera in one of two outfits, four distractors, one lone query."""
    generator = torch.Generator().manual_seed(0)
    number = count()
    tracklets = [
        {"pid": pid, "camid": camera, "tags": {"clothes": 2 * pid + (camera + again) % 2}}
        for pid in range(1, PERSONS + 1)
        for camera in range(CAMERAS)
        for again in range(2)
    ]
    tracklets += [{"pid": 0, "camid": camera % CAMERAS, "tags": {"clothes": 0}} for camera in range(4)]
    tracklets += [{"pid": 99, "camid": 0, "tags": {"clothes": 198}}]
    tracklets = [{"name": f"t{next(number)}", "frames": 4, "images": "x", **each} for each in tracklets]
    centers = torch.randn(100, 12, generator=generator)
    rows = torch.stack([centers[each["pid"]] for each in tracklets])
    rows = rows + 1.2 * torch.randn(rows.shape, generator=generator)
    query = [n for n in range(len(tracklets)) if n % 6 == 0 and n < 6 * PERSONS] + [len(tracklets) - 1]
    gallery = [n for n in range(len(tracklets)) if n != len(tracklets) - 1]
    return rows, tracklets, {"query": query, "gallery": gallery}


@pytest.fixture
def folder(tmp_path, scene):
    return write(tmp_path / "f", *scene)


def sides(scene, query=None, gallery=None):
    rows, tracklets, splits = scene
    query, gallery = query or splits["query"], gallery or splits["gallery"]
    pids, camids = (np.array([each[key] for each in tracklets]) for key in ("pid", "camid"))
    place = {n: i for i, n in enumerate(gallery)}
    labels = pids[query], pids[gallery], camids[query], camids[gallery]
    return rows[query], rows[gallery], labels, [place.get(n, -1) for n in query]


def figures(scene, query=None, gallery=None, **changes):
    a, b, labels, itself = sides(scene, query, gallery)
    return metrics.evaluate(a, b, *labels, exclude=itself, **changes)


def test_every_line_is_the_evaluation_that_it_says(folder, scene):
    _, tracklets, splits = scene
    result = audit_features(folder, resamples=200)
    assert json.loads(json.dumps(result)) == result
    rows = {row["choice"]: row for row in result["rows"]}
    own = figures(scene)
    first = result["rows"][0]
    assert (first["mAP"], first["rank1"], first["queries"]) == (own.mAP, own.rank(1), own.valid_queries)
    assert own.valid_queries == PERSONS
    clothes = [
        np.array([tracklets[n]["tags"]["clothes"] for n in splits[split]]) for split in ("query", "gallery")
    ]
    without = [n for n in splits["gallery"] if n not in splits["query"]]
    known = [n for n in splits["gallery"] if tracklets[n]["pid"] != 0]
    expected = {
        "AP by trapezoids": figures(scene, ap="trapezoid"),
        "same camera kept": figures(scene, junk=False),
        "query tracklets not in the gallery": figures(scene, gallery=without),
        "query tracklets in the gallery": figures(scene, gallery=[*splits["gallery"], splits["query"][-1]]),
        "4 distractors removed": figures(scene, gallery=known),
        "euclidean distance": figures(scene, metric="euclidean"),
        "re-ranked": figures(scene, rerank=True),
        "same clothes removed": figures(scene, rules=[metrics.JunkRule("clothes", *clothes)]),
        "other clothes removed": figures(scene, rules=[metrics.JunkRule("clothes", *clothes, "other")]),
    }
    for name, wanted in expected.items():
        row = rows.pop(name)
        assert (row["mAP"], row["rank1"]) == pytest.approx((wanted.mAP, wanted.rank(1)), abs=1e-12), name
        assert row["queries"] == wanted.valid_queries
        for key, value in (("mAP", wanted.mAP - own.mAP), ("rank1", wanted.rank(1) - own.rank(1))):
            difference = row["difference"][key]
            assert difference["value"] == pytest.approx(value, abs=1e-12)
            assert difference["low"] - 1e-12 <= difference["value"] <= difference["high"] + 1e-12
    zero = rows.pop("unmatched queries count 0")
    assert zero["mAP"] == pytest.approx(own.mAP * PERSONS / (PERSONS + 1))
    assert zero["queries"] == PERSONS + 1
    assert len(rows) == 5  # the protocol itself, and those of the next test
    assert "MARS-evaluation" in zero["used_by"]


def test_other_cameras_several_queries_and_the_cmc(folder, scene):
    rows, tracklets, splits = scene
    result = {row["choice"]: row for row in audit_features(folder, resamples=20)["rows"]}
    a, b, labels, itself = sides(scene)
    q_pids, g_pids, q_camids, g_camids = labels
    distance = 1 - torch.nn.functional.normalize(a.double()) @ torch.nn.functional.normalize(b.double()).T
    others = torch.from_numpy(q_camids[:, None] != g_camids)
    far = metrics.evaluate_distances(distance + 10 * ~others, *labels)
    row = result["query's camera removed for everyone"]
    assert (row["mAP"], row["rank1"]) == pytest.approx((far.mAP, far.rank(1)))

    unit = torch.nn.functional.normalize(rows.double())
    pids, camids = (np.array([each[key] for each in tracklets]) for key in ("pid", "camid"))
    mean = torch.stack([unit[(pids == pids[n]) & (camids == camids[n])].mean(0) for n in splits["query"]])
    several = metrics.evaluate(mean.float(), b, *labels, exclude=itself)
    row = result["query: mean over its person and camera"]
    assert (row["mAP"], row["rank1"]) == pytest.approx((several.mAP, several.rank(1)))

    first = []
    for number in range(PERSONS):
        kept = (g_pids != q_pids[number]) | (g_camids != q_camids[number])
        order = distance[number].argsort().numpy()
        hits = (g_pids == q_pids[number])[order][kept[order]]
        first.append(hits[: (~hits).argmax()].sum() / hits.sum())
    row = result["CMC of all shots"]
    assert row["mAP"] is None
    assert row["rank1"] == pytest.approx(np.mean(first))
    assert row["rank1"] <= result["CMC of a single gallery shot"]["rank1"] <= 1


def test_the_protocol_of_the_folder_is_the_first_line(tmp_path, scene):
    rows, tracklets, splits = scene
    clothes = write(tmp_path / "c", *scene, junk_tags={"clothes": "same"})
    result = audit_features(clothes, resamples=2)
    names = [row["choice"] for row in result["rows"]]
    assert "same clothes removed" not in names
    assert "tags ignored" in names
    assert result["rows"][0]["mAP"] != result["rows"][names.index("tags ignored")]["mAP"]
    old = write(tmp_path / "old", *scene, junk="absent", junk_tags="absent")
    result = audit_features(old, resamples=2)
    assert result["junk"] is True
    assert any("older version" in line for line in result["missing"])
    assert any("eval.sampling=dense" in line for line in result["missing"])
    one = [each | {"camid": 1} for each in tracklets]
    result = audit_features(write(tmp_path / "one", rows, one, splits, junk=False), resamples=2)
    assert any(line.startswith("same camera removed: no query") for line in result["missing"])
    assert any(line.startswith("query's camera removed") for line in result["missing"])


def test_other_clips_are_one_more_line(tmp_path, folder, scene):
    rows, tracklets, splits = scene
    dense = write(tmp_path / "dense", rows + 0.1, tracklets, splits, identity={"eval.sampling": "dense"})
    done = []
    result = audit_features(folder, beside=[dense], resamples=2, progress=lambda *step: done.append(step))
    last = result["rows"][-1]
    assert last["choice"].startswith("dense, 4 frames (")
    assert last["mAP"] == figures((rows + 0.1, tracklets, splits)).mAP
    assert not result["missing"]
    assert done[-1] == (len(done), len(done))

    other = write(tmp_path / "weights", *scene, identity={"weights": "v"})
    with pytest.raises(
        ValueError, match=r"^beside: expected features of the same model, got another weights in"
    ):
        audit_features(folder, beside=[other])
    fewer = write(tmp_path / "fewer", rows, tracklets, splits | {"query": splits["query"][:3]})
    with pytest.raises(ValueError, match=r"^beside: expected the query tracklets of the audited features"):
        audit_features(folder, beside=[fewer])


def test_what_cannot_be_audited_is_named(tmp_path, scene):
    rows, tracklets, splits = scene
    with pytest.raises(ValueError, match=r"^features: expected a folder of features"):
        audit_features(tmp_path)
    with pytest.raises(ValueError, match=r"its own distance function"):
        audit_features(write(tmp_path / "stal", *scene, metric=None))
    lone = [each | {"pid": number} for number, each in enumerate(tracklets)]
    with pytest.raises(
        ValueError, match=r"^features: expected queries with a match in the gallery, got none"
    ):
        audit_features(write(tmp_path / "lone", rows, lone, splits))


def test_command(tmp_path, folder, vreid):
    status, out, _ = vreid("eval", "--features", folder, "--all-protocols", "--out", tmp_path / "a.json")
    assert status == 0
    assert "AP by trapezoids: MARS-evaluation utils/compute_AP.m" in out
    assert "protocol: own" in out
    stored = json.loads((tmp_path / "a.json").read_text())
    status, out, _ = vreid("eval", "--features", folder, "--all-protocols", "--json")
    assert json.loads(out) == stored
    for arguments, message in (
        (["--all-protocols"], "--features: expected a folder of"),
        (["--features", folder, "--beside", folder], "--beside: expected together with --all-protocols"),
        (["--features", folder, "--all-protocols", "--rerank"], "--rerank: expected without --all-protocols"),
        ([], "CHECKPOINT"),
    ):
        status, _, error = vreid("eval", *arguments)
        assert status
        assert message in error
