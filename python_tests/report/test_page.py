"""The page holds what was measured, needs nothing from elsewhere, and takes names for names."""

import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from vreid_ext.report.page import report_checkpoint


class Read(HTMLParser):
    """Elements with their attributes, the text between them, and the embedded data."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements, self.texts, self.inside = [], [], []
        self.feed(page.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.texts).split())
        (self.data,) = (json.loads(text) for attributes, text in self.scripts if "type" in attributes)

    @property
    def scripts(self):
        return [(attributes, text) for tag, attributes, text in self.elements if tag == "script"]

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in ("script", "style"):
            self.elements[-1][2] += data
        else:
            self.texts.append(data)


@pytest.fixture(scope="module")
def read(page):
    return Read(page[0])


def test_figures_stand_with_their_protocol_and_definition(page, read):
    _, result = page
    assert result["protocol"] in read.text
    assert "“precision”: the mean over a query's matches" in read.text
    for row in result["rows"]:
        assert f"{100 * row['mAP']:.1f}" in read.text
        assert f"{row['valid_queries']} of {row['queries']}" in read.text
    assert "<u>beside</u>" in read.text


def test_nothing_comes_from_elsewhere(page, read):
    own = f"{page[0].stem}_files/"
    for tag, attributes, _ in read.elements:
        for name in ("src", "href", "xlink:href", "action", "data"):
            target = attributes.get(name) or ""
            if tag == "img" and name == "src" and target:
                assert attributes["loading"] == "lazy"
                assert unquote(target).startswith(own)
                assert (page[0].parent / unquote(target)).is_file()
            else:
                assert target.startswith(("#", "data:,")) or not target
    assert "url(http" not in page[0].read_text()


def test_names_are_text_never_markup(page, read):
    assert not any("onerror" in attributes for _, attributes, _ in read.elements)
    assert len(read.scripts) == 2
    names = [name for name, *_ in read.data["tracklets"]]
    hostile, odd = "<img src=x onerror=\"document.title='owned'\"> & 'q'", "line\nbreak \udcff <!--<script> $"
    assert all((odd if name.startswith(("query/7", "gallery/7")) else hostile) in name for name in names)
    assert "document.title='owned'<" not in page[0].read_text()  # the data set's path, in the recipe
    assert "&lt;/script&gt;&lt;script&gt;" in page[0].read_text()


def test_lists_hold_the_asked_ranks_and_their_thumbnails_alone(page, read):
    folder = page[0].parent / read.data["folder"]
    for query in read.data["queries"]:
        kinds = [kind for _, _, kind, _ in query["places"]]
        assert len(kinds) - kinds.count("junk") == 3
        distances = [distance for _, distance, *_ in query["places"]]
        assert distances == sorted(distances)
    strips = {strip for *_, strip, _ in read.data["tracklets"]}
    assert {path.name for path in folder.glob("*.jpg")} == strips
    assert (
        {path.name for path in folder.glob("*.png")}
        == {query["attention"] for query in read.data["queries"] if query["attention"]}
        != set()
    )


def test_recipe_environment_and_curves_are_there(read):
    assert "inter_frame: 0.5" in read.text
    assert "vreid_ext" in read.text
    drawn = [
        attributes["aria-label"] for tag, attributes, _ in read.elements if attributes.get("role") == "img"
    ]
    assert len(drawn) == 3
    for word in ("queries matched (%)", "inter_frame", "triplet", "mAP (%)"):
        assert word in read.text


def test_a_run_under_other_rules_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr("vreid_ext.report.page.PICTURES", 2)
    page = report_checkpoint(
        run, ["eval.ap=trapezoid", "eval.frames=2"], figures=tmp_path / "r.json",
        beside={"other": run, "vtest_sta": run},
    )["page"]  # fmt: skip
    text = Read(Path(page)).text
    assert "other (ap: precision)" in text
    assert "vtest_sta (beside) (ap: precision)" in text


def calibrated(run, folder):
    """A threshold for the features of the run, calibrated on its own data set."""
    from vreid_ext.engine.calibrate import calibrate
    from vreid_ext.engine.features import export_features

    (features,) = export_features(run, folder / "features", ["eval.frames=2"])
    return calibrate(features.folder, 0.2, out=folder / "own.json", resamples=20)[0]


def test_a_threshold_answers_for_the_listed_tracklets(run, tmp_path, monkeypatch):
    monkeypatch.setattr("vreid_ext.report.page.PICTURES", 2)
    saved = calibrated(run, tmp_path)
    result = report_checkpoint(
        run, ["eval.frames=2"], figures=tmp_path / "r.json", threshold=Path(saved["file"])
    )
    read = Read(Path(result["page"]))
    band = saved["threshold"]
    answers = set()
    for query in read.data["queries"]:
        for _, distance, _, answer in query["places"]:
            answers.add(answer)
            wanted = "same" if distance <= band["low"] else "not"
            if abs(distance - band["low"]) > 1e-5 and not band["low"] < distance <= band["high"] + 1e-5:
                assert answer == wanted
    assert answers <= {"same", "too close to say", "not"}
    assert f"up to a distance of {band['low']:.4f}" in read.text
    assert "chosen for a false-match rate of 20 %" in read.text
    assert f"{saved['genuine']} pairs of one person" in read.text
    for word in ("misses (% of pairs of one person)", "different persons", "threshold"):
        assert word in read.text


def test_a_threshold_of_another_model_gives_no_answers(run, tmp_path, monkeypatch):
    monkeypatch.setattr("vreid_ext.report.page.PICTURES", 2)
    saved = calibrated(run, tmp_path)
    with pytest.raises(ValueError, match=r"^threshold: expected .* of eval.frames 3, got one for 2"):
        report_checkpoint(run, ["eval.frames=3"], figures=tmp_path / "r.json", threshold=Path(saved["file"]))
    assert not (tmp_path / "r.json").exists()
    own = run / "threshold.json"  # found without being asked for: the page is still written
    own.write_text(Path(saved["file"]).read_text())
    try:
        result = report_checkpoint(run, ["eval.frames=3"], figures=tmp_path / "r.json")
    finally:
        own.unlink()
    read = Read(Path(result["page"]))
    assert "threshold: expected one for features of eval.frames 3, got one for 2" in read.text
    assert {answer for query in read.data["queries"] for *_, answer in query["places"]} == {None}


def test_what_cannot_be_shown_is_refused_before_anything_is_computed(run, tmp_path):
    with pytest.raises(ValueError, match=r"ranks: expected .*, got 0"):
        report_checkpoint(run, ranks=0)
    with pytest.raises(ValueError, match="expected a finished run or the JSON"):
        report_checkpoint(run, figures=tmp_path / "r.json", beside={"no run": tmp_path})
    assert not any(tmp_path.iterdir())
