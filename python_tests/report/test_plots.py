"""Pictures are written as asked, show what they are given, and refuse what they cannot show."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from vreid_ext import metrics
from vreid_ext.ops import sta_pool
from vreid_ext.report import (
    fonts,
    plot_attention,
    plot_cmc,
    plot_curves,
    plot_dvdp,
    plot_intervals,
    plot_length_grid,
    plot_parts,
    plot_ranking,
    plot_verification,
)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [{"kind": "step", "step": step, "epoch": 0, "loss": 1 / step} for step in range(1, 30)]
    lines += [{"kind": "eval", "step": step, "mAP": step / 100} for step in (15, 29)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 3, 32, 16), dtype=torch.uint8, generator=generator)
    return frames, sta_pool(torch.rand(1, 3, 5, 8, 4, generator=generator), 2)


def svg_text(path) -> set[str]:
    """Labels of an SVG; matplotlib keeps each in a comment beside its glyphs."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    return {node.text.strip() for node in ElementTree.parse(path, parser).iter(ElementTree.Comment)}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_suffix_chooses_the_format_and_folders_are_made(tmp_path, log, clip, suffix):
    frames, pool = clip
    paths = [
        plot_cmc({"STA": [0.5, 0.75]}, tmp_path / "a" / f"cmc.{suffix}"),
        plot_curves({"STA": log}, tmp_path / "a" / f"curves.{suffix}"),
        plot_attention(frames, pool, tmp_path / "a" / f"attention.{suffix}"),
    ]
    for path in paths:
        if suffix == "png":
            with Image.open(path) as image:
                assert image.format == "PNG"
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_cmc_names_every_system_with_its_rank_1(tmp_path):
    curves = {"average": np.array([0.25, 1.0]), "STA": torch.tensor([0.5, 0.75])}
    assert {"average, rank-1 25.0 %", "STA, rank-1 50.0 %"} <= svg_text(
        plot_cmc(curves, tmp_path / "cmc.svg")
    )


def test_curves_have_an_accuracy_panel_only_where_a_run_was_evaluated(tmp_path, log):
    assert {"loss", "mAP (%)"} <= svg_text(plot_curves({"STA": log}, tmp_path / "both.svg"))
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines() if '"eval"' not in line))
    assert "mAP (%)" not in svg_text(plot_curves({"STA": log}, tmp_path / "one.svg"))


def test_attention_writes_every_block_score(tmp_path, clip):
    frames, pool = clip
    shown = svg_text(plot_attention(frames, pool, tmp_path / "attention.svg", title="0002C1T0001"))
    assert {f"{score:.2f}" for score in pool.scores.flatten().tolist()} <= shown
    assert {"0002C1T0001", "t = 3"} <= shown


def test_names_are_neither_formulas_nor_always_utf8(tmp_path, clip):
    frames, pool = clip
    shown = svg_text(plot_attention(frames, pool, tmp_path / "a.svg", title="a $\\frac{$ \udcff"))
    assert "a $\\frac{$ ?" in shown
    shown = svg_text(plot_cmc({"$x_1$": [0.5, 1.0]}, tmp_path / "b.svg"))
    assert any(text.startswith("$x_1$, rank-1") for text in shown)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_names_that_no_font_has_are_escaped_and_a_note_says_so(tmp_path, clip, suffix, caplog, monkeypatch):
    monkeypatch.setattr(fonts.fontManager, "ttflist", dejavu())
    frames, pool = clip
    path = plot_attention(frames, pool, tmp_path / f"a{suffix}", title="张三/cam\u0301 \x07 \U0001f9d1")
    if suffix == ".svg":
        assert {r"\u5f20\u4e09/caḿ \x07 \U0001f9d1", fonts.NOTE} <= svg_text(path)
    assert not caplog.records
    plain = plot_attention(frames, pool, tmp_path / f"b{suffix}", title="josé Ωμέγα Жанна")
    if suffix == ".svg":
        assert "josé Ωμέγα Жанна" in svg_text(plain)
        assert fonts.NOTE not in svg_text(plain)


def dejavu():
    return [font for font in fonts.fontManager.ttflist if font.name.startswith(("DejaVu", "Last Resort"))]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_font_that_has_the_characters_is_found(tmp_path, suffix, caplog, monkeypatch):
    """A font of two squares, as fonts for Chinese are not everywhere."""
    builder = FontBuilder(1000)
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    glyphs = [".notdef", "first", "second"]
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap({0x5F20: "first", 0x4E09: "second"})
    builder.setupGlyf(dict.fromkeys(glyphs, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Two Squares", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    monkeypatch.setattr(fonts.fontManager, "ttflist", dejavu())
    fonts.fontManager.addfont(tmp_path / "squares.ttf")
    assert fonts.families_for("张三 a", ["sans-serif"]) == (["Two Squares"], set())
    path = plot_cmc({"张三/1": [0.5, 1.0]}, tmp_path / f"a{suffix}")
    if suffix == ".svg":
        assert "张三/1, rank-1 50.0 %" in svg_text(path)
        assert fonts.NOTE not in svg_text(path)
    assert not caplog.records


def test_the_heat_map_covers_the_frame(tmp_path):
    frames = torch.zeros(1, 3, 32, 16, dtype=torch.uint8)
    attention = torch.zeros(1, 4, 2)
    attention[0, 3, 1] = 1.0
    drawn = []
    for heat in (attention, attention.flip(1)):
        pool = SimpleNamespace(scores=torch.ones(1, 2), attention=heat)
        with Image.open(plot_attention(frames, pool, tmp_path / "a.png")) as image:
            drawn.append(np.asarray(image.convert("RGB"), int))
    moved = np.abs(drawn[0] - drawn[1]).sum(2) > 60
    rows = np.flatnonzero(moved.any(1))
    assert rows[-1] - rows[0] > 0.15 * len(moved)


def test_a_ranking_counts_what_is_no_junk(tmp_path):
    frames = [torch.zeros(3, 32, 16, dtype=torch.uint8), torch.zeros(3, 40, 20, dtype=torch.uint8)] * 6
    kinds = ["junk", "hit", "miss"] * 4
    distances = [0.1 + place / 100 for place in range(12)]
    path = plot_ranking(frames[0], frames, kinds, distances, tmp_path / "r.svg", title="0002C1T0001")
    assert {"0002C1T0001", "query", "junk", "1 hit", "2 miss", "8 miss", "0.100", "0.210"} <= svg_text(path)
    with pytest.raises(ValueError, match=r"expected .*, got 12, 11 and 12 items"):
        plot_ranking(frames[0], frames, kinds[1:], distances, tmp_path / "no.svg")
    with pytest.raises(ValueError, match=r"kinds: expected .*, got 'good'"):
        plot_ranking(frames[0], frames[:1], ["good"], [0.1], tmp_path / "no.svg")
    assert not (tmp_path / "no.svg").exists()


def test_the_same_figures_give_the_same_bytes(tmp_path):
    first, second = (plot_cmc({"STA": [0.5]}, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second


@pytest.mark.parametrize("curves", [{}, {"STA": []}, {"STA": [0.5, 1.5]}, {"STA": [[0.5]]}])
def test_wrong_curves_are_refused(tmp_path, curves):
    with pytest.raises(ValueError, match="results"):
        plot_cmc(curves, tmp_path / "cmc.png")
    assert not any(tmp_path.iterdir())


def test_a_run_without_a_term_is_left_out_of_its_panel(tmp_path, log):
    other = tmp_path / "other.jsonl"
    other.write_text(log.read_text().replace('"loss"', '"loss": 1, "triplet"'))
    shown = svg_text(plot_curves({"one": log, "two": other}, tmp_path / "c.svg", terms=["loss", "triplet"]))
    assert {"one", "two", "triplet"} <= shown


def test_a_log_without_the_term_or_with_a_torn_line_is_named(tmp_path, log):
    with pytest.raises(ValueError, match="triplet"):
        plot_curves({"STA": log}, tmp_path / "curves.png", terms=["triplet"])
    log.write_text(log.read_text() + '{"kind": "st')
    with pytest.raises(ValueError, match="line 32"):
        plot_curves({"STA": log}, tmp_path / "curves.png")


def test_an_unknown_suffix_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cmc\.bmp"):
        plot_cmc({"STA": [0.5]}, tmp_path / "cmc.bmp")


def test_frames_and_scores_must_belong_together(tmp_path, clip):
    frames, pool = clip
    with pytest.raises(TypeError, match="frames"):
        plot_attention(frames.float(), pool, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"scores: expected shape"):
        plot_attention(frames[:2], pool, tmp_path / "a.png")


def test_dvdp_per_epoch_beside_map(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [{"kind": "epoch", "epoch": epoch, "dvdp": 0.1 / (epoch + 1)} for epoch in range(3)]
    lines += [{"kind": "eval", "epoch": 2, "mAP": 0.5}]
    log.write_text("\n".join(map(json.dumps, lines)))
    assert {"DVDP", "mAP (%)", "epoch", "AITL"} <= svg_text(plot_dvdp({"AITL": log}, tmp_path / "dvdp.svg"))
    log.write_text(json.dumps({"kind": "epoch", "epoch": 0, "loss": 1.0}))
    with pytest.raises(ValueError, match=r"logs: expected logs with DVDP"):
        plot_dvdp({"AITL": log}, tmp_path / "none.svg")
    with pytest.raises(ValueError, match=r"logs: expected .*, got none"):
        plot_dvdp({}, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_length_grid_is_drawn_and_checked(tmp_path):
    path = plot_length_grid([1, "all"], [[0.1, 0.2], [0.3, 1.0]], tmp_path / "grid.svg")
    assert "frames of a query" in path.read_text()
    for values in ([[0.1]], [[0.1, 0.2], [0.3, 1.1]]):
        with pytest.raises(ValueError, match=r"values: expected fractions"):
            plot_length_grid([1, "all"], values, tmp_path / "bad.svg")
    assert not (tmp_path / "bad.svg").exists()


def test_intervals_are_drawn_with_their_differences(tmp_path):
    rows = {"average": (0.5, 0.4, 0.6), "STA": (0.55, 0.45, 0.66), "worse": (0.2, 0.1, 0.25)}
    differences = {"STA": (0.05, -0.01, 0.11), "worse": (-0.3, -0.4, -0.2)}
    drawn = plot_intervals(rows, tmp_path / "two.svg", differences=differences).read_text()
    for text in ("average", "STA", "worse", "mAP (%)", "difference of mAP (%)"):
        assert f"<!-- {text} -->" in drawn
    assert "difference" not in plot_intervals(rows, tmp_path / "one.svg").read_text()
    for bad in ({}, {"a": (0.5, 0.4)}, {"a": (0.5, 0.6, 0.4)}):
        with pytest.raises(ValueError, match=r"rows.*: expected "):
            plot_intervals(bad, tmp_path / "bad.svg")
    assert not (tmp_path / "bad.svg").exists()


def test_parts_are_drawn_and_checked(tmp_path):
    frames = torch.zeros(2, 3, 32, 16, dtype=torch.uint8)
    joints = torch.rand(2, 14, 3, generator=torch.Generator().manual_seed(0))
    joints[1] = 0
    path = plot_parts(frames, joints, tmp_path / "parts.svg", scores=torch.rand(2, 6))
    assert "right arm" in path.read_text()
    with pytest.raises(ValueError, match=r"joints: expected shape \(2, 14, 3\), got \(1, 14, 3\)"):
        plot_parts(frames, joints[:1], tmp_path / "bad.svg")
    with pytest.raises(ValueError, match=r"scores: expected .*got .*\(2, 5\)"):
        plot_parts(frames, joints, tmp_path / "bad.svg", scores=torch.rand(2, 5))
    with pytest.raises(TypeError, match=r"frames: expected .*, got torch"):
        plot_parts(frames.float(), joints, tmp_path / "bad.svg")


def test_verification_shows_the_threshold_and_both_kinds_of_pairs(tmp_path):
    generator = torch.Generator().manual_seed(0)
    pids = torch.arange(40) // 4
    rows = torch.randn(10, 8, generator=generator)[pids] + torch.randn(40, 8, generator=generator)
    figures = metrics.verification(rows, pids, torch.arange(40) % 2, resamples=5)
    band = {"value": 0.4, "low": 0.35, "high": 0.5}
    path = plot_verification(figures, tmp_path / "new" / "v.svg", threshold=band, title="a title")
    text = path.read_text()
    labels = ("one person", "different persons", "threshold 0.400", f"EER {100 * figures.eer.value:.2g} %")
    for label in ("a title", *labels):
        assert f"<!-- {label} -->" in text
    assert "threshold" not in plot_verification(figures, tmp_path / "v.svg").read_text()
    with pytest.raises(ValueError, match=r"^path: expected a name that ends in .png or .svg"):
        plot_verification(figures, tmp_path / "v.pdf")
