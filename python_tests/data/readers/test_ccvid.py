"""CCVID: layout, clothes as a tag, and the three settings of the clothes."""

import numpy as np
import pytest
import torch
from PIL import Image

from vreid_ext import metrics
from vreid_ext.data import DatasetError, build_dataset
from vreid_ext.engine.comparison import ids, rules

LISTS = {
    "train": ["session1/004_01\t004\tu0_l0_s0_c0_a0", "session3/004_02\t004\tu1_l1_s0_c0_a0"],
    "query": ["session1/001_01\t001\tu0_l0_s0_c0_a0", "session3/002_01\t002\tu0_l0_s0_c0_a0"],
    "gallery": [
        "session1/001_01\t001\tu0_l0_s0_c0_a0",
        "session1/001_02\t001\tu0_l0_s0_c0_a0",
        "session3/001_01\t001\tu1_l0_s0_c0_a0",
        "session1/002_01\t002\tu0_l0_s0_c0_a0",
    ],
}


@pytest.fixture
def root(tmp_path):
    for split, lines in LISTS.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            folder = tmp_path / line.split()[0]
            folder.mkdir(parents=True, exist_ok=True)
            for frame in (1, 2, 10):
                Image.new("RGB", (4, 8)).save(folder / f"{frame:05}.jpg")
    return tmp_path


def test_layout(root):
    data = build_dataset("ccvid", root)
    assert [(t.name, t.pid, t.camid) for t in data.train] == [
        ("session1/004_01", 4, 1),
        ("session3/004_02", 4, 14),
    ]
    assert [path[-9:] for path in data.train[0].paths] == ["00001.jpg", "00002.jpg", "00010.jpg"]
    clothes = {t.name: t.tags["clothes"] for t in data.gallery}
    assert clothes["session1/001_01"] == clothes["session1/001_02"] != clothes["session3/001_01"]
    assert clothes["session1/002_01"] != clothes["session1/001_01"]  # equal labels of two persons
    assert data.junk
    assert not data.junk_tags


def ranked(data):
    """(valid queries, rank of the first match), for a gallery that is sorted by distance as it is listed."""
    query, gallery = torch.zeros(len(data.query), 1), torch.arange(1.0, len(data.gallery) + 1)[:, None]
    result = metrics.evaluate(query, gallery, *ids(data), metric="euclidean", rules=rules(data))
    return result.per_query["first_hit"].tolist(), result.protocol


@pytest.mark.parametrize(
    ("setting", "hits", "rule"),
    [
        ("general", [1, 4], "same pid and camera"),
        ("clothes_changing", [1, 0], "same pid and same clothes"),  # person 2 never changes clothes
        ("same_clothes", [1, 4], "same pid and other clothes"),
    ],
)
def test_settings(root, setting, hits, rule):
    data = build_dataset("ccvid", root, setting=setting)
    first_hit, protocol = ranked(data)
    assert first_hit == hits
    assert rule in protocol
    assert data.ignores(data.query[0], data.gallery[1]) == (setting == "clothes_changing")
    assert data.ignores(data.query[0], data.gallery[2]) == (setting == "same_clothes")
    assert not data.ignores(data.query[0], data.gallery[3])


def test_settings_are_those_of_the_authors(root):
    """Against a plain reading of `evaluate_with_clothes` of Simple-CCReID, on random labels."""
    rng = np.random.default_rng(0)
    q = {name: rng.integers(0, n, 60) for name, n in (("pid", 4), ("camid", 3), ("clothes", 3))}
    g = {name: rng.integers(0, n, 12) for name, n in (("pid", 5), ("camid", 3), ("clothes", 3))}
    distances = rng.random((60, 12))
    for remove in ("same", "other"):
        expected = []
        for row in range(60):
            person, camera = g["pid"] == q["pid"][row], g["camid"] == q["camid"][row]
            same = g["clothes"] == q["clothes"][row]
            junk = person & (camera | (same if remove == "same" else ~same))
            hits = person[np.argsort(distances[row])][~junk[np.argsort(distances[row])]]
            ranks = np.flatnonzero(hits) + 1
            expected += [np.mean(np.arange(1, len(ranks) + 1) / ranks)] if len(ranks) else []
        result = metrics.evaluate_distances(
            torch.from_numpy(distances), q["pid"], g["pid"], q["camid"], g["camid"],
            rules=[metrics.JunkRule("clothes", q["clothes"], g["clothes"], remove)],
        )  # fmt: skip
        assert result.mAP == pytest.approx(np.mean(expected), abs=1e-12)
        assert result.valid_queries == len(expected) < 60


def test_damage(root):
    with pytest.raises(
        ValueError, match=r"^setting: expected one of general, clothes_changing, same_clothes, got 'CC'"
    ):
        build_dataset("ccvid", root, setting="CC")
    for image in (root / "session1/001_02").iterdir():
        image.unlink()
    with pytest.raises(DatasetError, match=r"001_02: expected at least one image, got none"):
        build_dataset("ccvid", root)
    data = build_dataset("ccvid", root, on_error="skip")
    assert len(data.gallery) == 3
    assert len(data.skipped) == 1
    (root / "session1/001_02").rmdir()
    with pytest.raises(DatasetError, match=r"001_02: cannot list this folder"):
        build_dataset("ccvid", root)
    (root / "query.txt").write_text("session1/001_01 001\n")
    with pytest.raises(
        DatasetError, match=r"query\.txt, line 1: expected a line like 'session1/001_01 001 u0"
    ):
        build_dataset("ccvid", root)
    (root / "query.txt").write_text("s1/001_01 001 u0\n")
    with pytest.raises(DatasetError, match=r"query\.txt, entry 1: expected a line like"):
        build_dataset("ccvid", root)
    (root / "query.txt").write_text("\n")
    with pytest.raises(DatasetError, match=r"query\.txt: expected at least one line"):
        build_dataset("ccvid", root)
    (root / "query.txt").unlink()
    with pytest.raises(DatasetError, match=r"a folder without 'query\.txt'"):
        build_dataset("ccvid", root)


def test_a_tag_that_is_missing_is_named(root):
    data = build_dataset("ccvid", root)
    data.junk_tags = {"shoes": "same"}
    with pytest.raises(
        ValueError, match=r"^junk_tags: expected tracklets with 'shoes', got none in 'session1/001_01'"
    ):
        rules(data)
    with pytest.raises(ValueError, match=r"^rules: remove of clothes: expected"):
        metrics.evaluate_distances(
            torch.ones(1, 2), [1], [1, 2], [1], [2, 2],
            rules=[metrics.JunkRule("clothes", [1], [1, 2], "all")],
        )  # fmt: skip
