"""The demo end to end on a set of a few people, one epoch each."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from vreid_ext.demo import run_demo

TINY = {"ids": 16, "cameras": 2, "tracklets": 1, "frames": 4, "size": [64, 32]}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vreid_ext.report.page.PICTURES", 2)
        yield out, run_demo(out, epochs=1, settings=TINY, quiet=True)


def test_both_poolings_get_a_row_of_fractions_for_both_conditions(demo):
    _, rows = demo
    assert list(rows) == ["average pooling", "consensus pooling"]
    for conditions in rows.values():
        assert list(conditions) == ["clean", "corrupted"]
        for row in conditions.values():
            assert 0 < row["mAP"] <= 1
            assert 0 <= row["rank1"] <= row["rank5"] <= 1
            assert row["valid_queries"] == 16
        assert conditions["clean"]["mAP"] != conditions["corrupted"]["mAP"]


def test_the_pictures_are_there(demo):
    out, _ = demo
    for name in ("curves", "cmc", "attention-1", "attention-2", "attention-3"):
        with Image.open(out / f"{name}.png") as image:
            assert image.width > 300


def test_the_report_has_both_poolings(demo):
    page = (demo[0] / "report.html").read_text()
    assert "average pooling" in page
    assert "synth_frame minus the other run" in page
    assert "33.3 % of the frames of query and gallery" in page


def test_a_second_demo_prints_the_rows_without_training_again(demo, capsys):
    out, rows = demo
    kept = [out / "set" / "synth.json", out / "run" / "log.jsonl"]
    before = [path.stat().st_mtime_ns for path in kept]
    assert run_demo(out, epochs=1, settings=TINY) == rows
    assert [path.stat().st_mtime_ns for path in kept] == before
    printed = capsys.readouterr().out
    for conditions in rows.values():
        for row in conditions.values():
            assert all(f"{100 * row[figure]:.1f}" in printed for figure in ("mAP", "rank1", "rank5"))
    for condition in ("clean", "corrupted"):
        difference = (
            r"consensus pooling minus average pooling: mAP [+-]\d+\.\d \[.*\(16 queries of \d+ persons"
        )
        assert re.search(f"{condition}: {difference}", printed)


def test_another_seed_needs_another_folder(demo):
    out, _ = demo
    with pytest.raises(ValueError, match="choose another folder"):
        run_demo(out, epochs=1, seed=1, settings=TINY, quiet=True)
