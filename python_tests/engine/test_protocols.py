"""Protocols of data sets beyond person and camera: clothes, directions; from the files to the figures."""

import numpy as np
import pytest
import torch
from PIL import Image

from vreid_ext import engine, metrics
from vreid_ext.engine.audit import audit_features
from vreid_ext.engine.comparison import Comparison, ids, rules
from vreid_ext.report.ranked import ranked_lists


def picture(path, *numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(numbers).integers(0, 255, (16, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def ccvid_root(tmp_path_factory):
    """Three persons for training and three for testing, each in two outfits, in three cameras."""
    root = tmp_path_factory.mktemp("ccvid")
    lines = {"train": [], "query": [], "gallery": []}
    for pid in range(1, 7):
        for session, outfit in ((1, "u0"), (3, "u1")):
            for camera in (1, 2):
                folder = f"session{session}/{pid:03}_{camera:02}"
                split = "train" if pid < 4 else "query" if (session, camera) == (1, 1) else "gallery"
                lines[split].append(f"{folder}\t{pid:03}\t{outfit}\n")
                for frame in (1, 2):
                    picture(root / folder / f"{frame:05}.jpg", pid, session, camera)
    for split, text in lines.items():
        (root / f"{split}.txt").write_text("".join(text))
    return root


@pytest.fixture(scope="module")
def aerial_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ag")
    parts = {
        "train": [(pid, camera) for pid in (1, 2, 3) for camera in (0, 4)],
        "case1_aerial_to_ground/query": [(pid, 4) for pid in (4, 5)],
        "case1_aerial_to_ground/gallery": [(pid, 0) for pid in (4, 5, 6)],
        "case2_ground_to_aerial/query": [(pid, 0) for pid in (4, 5, 6)],
        "case2_ground_to_aerial/gallery": [(pid, 4) for pid in (4, 5, 6)],
    }
    for folder, tracks in parts.items():
        for pid, camera in tracks:
            for frame in (1, 2):
                picture(
                    root / folder / f"{pid:04}" / f"T{camera}" / f"P{pid}C{camera}E0F{frame:03}.jpg",
                    pid,
                    camera,
                )
    return root


def test_the_clothes_of_a_tracklet_reach_figures_lists_and_features(ccvid_root, tiny_recipe, tmp_path):
    change = ["dataset.name=ccvid", f"dataset.root={ccvid_root}", "dataset.options.gallery=null"]
    engine.train(tiny_recipe(*change), tmp_path / "run", quiet=True)
    seen = []
    changing = ["dataset.options.setting=clothes_changing"]
    result = engine.evaluate_checkpoint(
        tmp_path / "run", changing, features=tmp_path / "f", observe=seen.append
    )
    (evaluated,) = seen
    data = evaluated.dataset
    by_hand = metrics.evaluate(
        evaluated.query, evaluated.gallery, *ids(data), exclude=evaluated.itself, rules=rules(data)
    )
    assert result["rows"][0]["mAP"] == by_hand.mAP
    assert "clothes changing" in result["protocol"]
    assert Comparison(data).count_matched() == result["rows"][0]["valid_queries"] == 3
    for query, listed in zip(data.query, ranked_lists(evaluated, ranks=9), strict=True):
        kinds = {data.gallery[place.gallery].name: place.kind for place in listed}
        person = f"{query.pid:03}"
        assert kinds[f"session1/{person}_02"] == "junk"
        assert kinds[f"session3/{person}_01"] == kinds[f"session3/{person}_02"] == "hit"

    stored = metrics.StoredFeatures(tmp_path / "f")
    assert stored.manifest["junk_tags"] == {"clothes": "same"}
    assert all("clothes" in row["tags"] for row in stored.manifest["tracklets"])
    audit = audit_features(tmp_path / "f", resamples=2)
    assert audit["rows"][0]["mAP"] == by_hand.mAP
    general = engine.evaluate_checkpoint(tmp_path / "run", out=tmp_path / "general.json")
    rows = {row["choice"]: row for row in audit["rows"]}
    assert rows["tags ignored"]["mAP"] == general["rows"][0]["mAP"] != by_hand.mAP


def test_sets_are_trained_jointly_and_each_direction_is_evaluated(ccvid_root, aerial_root, tiny, tmp_path):
    (tmp_path / "two.yaml").write_text(
        f"""
        dataset: [{{name: ccvid, root: "{ccvid_root}"}}, {{name: ag_vpreid, root: "{aerial_root}"}}]
        base: synth_avg
        """
    )
    recipe = engine.load_recipe(tmp_path / "two.yaml", [*tiny, "model.feature_dim=16"])
    result = engine.train(recipe, tmp_path / "run", quiet=True)
    assert [row["dataset"] for row in result["rows"]] == ["ccvid", "ag_vpreid"]
    for direction, queries in (("aerial_to_ground", 2), ("ground_to_aerial", 3)):
        change = ["dataset.name=ag_vpreid", f"dataset.root={aerial_root}"]
        each = engine.evaluate_checkpoint(
            tmp_path / "run", [*change, f"dataset.options.direction={direction}"], out=tmp_path / "one.json"
        )
        assert each["rows"][0]["queries"] == queries
        assert direction.replace("_", " ") in each["protocol"]


def test_rules_hold_in_every_figure():
    """`evaluate`, `rank` and `verification` remove the same pairs."""
    generator = torch.Generator().manual_seed(0)
    pids, camids, clothes = (torch.randint(n, (40,), generator=generator) for n in (5, 3, 3))
    rows = torch.randn(40, 4, generator=generator)
    rule = [metrics.JunkRule("clothes", clothes, clothes)]
    items, _ = metrics.rank(
        rows, rows, pids, pids, camids, camids, top=40, rules=rule, exclude=torch.arange(40)
    )
    same = (pids[:, None] == pids) & ((camids[:, None] == camids) | (clothes[:, None] == clothes))
    for row, kept in enumerate(items):
        assert set(kept[kept >= 0].tolist()) == set((~same[row]).nonzero()[:, 0].tolist())
    check = metrics.verification(rows, pids, camids, rules=rule, resamples=2, fprs=[0.1], fpirs=[])
    assert check.genuine == int(((pids[:, None] == pids) & ~same).sum()) // 2
    assert "same pid and same clothes" in check.protocol
