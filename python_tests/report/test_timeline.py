import json
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from footage import threshold_content, write_features, write_footage

from vreid_ext.engine.index import add_features, create_index
from vreid_ext.engine.threshold import read_threshold
from vreid_ext.engine.timeline import timeline_of
from vreid_ext.report.timeline import report_timeline

pytest.importorskip("lancedb", reason="needs the extra [gallery]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("footage")
    root = write_footage(folder / "people <b>")
    features = write_features(folder / "features", root)
    index = create_index(folder / "index", features)
    add_features(index, features, starts={None: "2026-11-27T12:00:00Z"})
    file = folder / "threshold.json"
    file.write_text(json.dumps(threshold_content(0.2, 0.1, 0.3)))
    return index, features, read_threshold(file)


def names(timeline):
    return [each.record.name for each in timeline.sightings]


ANNA = ["Anna/gate/0000", "Anna/street/0000", "Anna/gate/0004"]


def test_a_timeline_from_a_tracklet(footage):
    index, _, threshold = footage
    timeline = timeline_of(index, tracklet="Anna/gate/0000", threshold=threshold)
    assert names(timeline) == ANNA
    assert [each.answer for each in timeline.sightings] == [None, "same", "same"]
    assert timeline.exact
    assert [(stay.camera, stay.sightings) for stay in timeline.stays()] == [
        ("gate", 1),
        ("street", 1),
        ("gate", 1),
    ]
    assert timeline.stays()[1].start - timeline.stays()[0].end == timedelta(seconds=29.8)
    assert timeline.conflicts() == []
    assert names(timeline_of(index, tracklet="Anna/gate/0000", where="camera = gate", top=1)) == ANNA[::2]


def test_a_timeline_from_a_query_and_of_a_person(footage):
    index, features, threshold = footage
    timeline = timeline_of(index, query=features, name="Anna/street/0000", threshold=threshold, top=1)
    assert len(timeline.sightings) == 1
    assert timeline.notes == ["more than 1 tracklets are near enough; the nearest 1 are shown"]
    timeline = timeline_of(index, person="Bo's")
    assert names(timeline) == ["Bo's/gate/0001", "Bo's/street/0001"]
    assert timeline.exact is None
    assert names(timeline_of(index, person="Bo's", where="camera = gate or camera = door")) == [
        "Bo's/gate/0001"
    ]


def test_two_cameras_at_one_time_are_a_conflict(tmp_path, footage):
    _, features, _ = footage
    other = create_index(tmp_path / "index", features)
    add_features(other, features, starts={"gate": "2026-11-27T12:00:01Z", "street": "2026-11-27T12:00:00Z"})
    ((one, two),) = timeline_of(other, person="Bo's").conflicts()
    assert {one.record.camera, two.record.camera} == {"gate", "street"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "query: expected one of tracklet, person and query, got none"),
        ({"tracklet": "a", "person": "b"}, "query: expected one of .*, got tracklet and person"),
        ({"query": "features"}, "name: expected the name of a tracklet"),
        ({"tracklet": "Anna/gate/9"}, "names: expected names of tracklets of the index, got 'Anna/gate/9'"),
        ({"tracklet": "Anna/gate/0000", "where": "camra = 3"}, "where: expected a field"),
        ({"person": "Anna", "zone": "Europe/Berlim"}, "zone: expected a time zone"),
        ({"person": "Anna", "zone": "../etc"}, "zone: expected a time zone"),
    ],
)
def test_wrong_queries_write_nothing(footage, tmp_path, options, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        report_timeline(footage[0], tmp_path / "who.html", **options)
    with pytest.raises(ValueError, match=r"^out: expected a name that ends in \.html"):
        report_timeline(footage[0], tmp_path / "who.pdf", person="Anna")
    assert list(tmp_path.iterdir()) == []


def test_a_query_name_that_is_not_there(footage):
    with pytest.raises(ValueError, match=r"^query: expected a query tracklet, such as .*Anna/gate/0000"):
        timeline_of(footage[0], query=footage[1], name="Anna/gate/0001")


def test_the_page(footage, tmp_path):
    index, _, threshold = footage
    page = tmp_path / "who.html"
    result = report_timeline(
        index, page, tracklet="Anna/gate/0000", threshold=threshold, zone="Europe/Berlin"
    )
    assert [each["name"] for each in result["sightings"]] == ANNA
    text = page.read_text()
    assert "2026-11-27 13:01:30, 0.2 s" in text
    assert len(list((tmp_path / "who_files").glob("*.jpg"))) == 3
    assert "<b>" not in text.replace("&lt;b&gt;", "")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', text)
    assert policy == "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'"  # no script
    assert "<title>Timeline of Anna/gate/0000</title>" in text
    json.dumps(result)


def test_a_page_without_pictures_and_times(footage, tmp_path):
    _, features, _ = footage
    other = create_index(tmp_path / "index", features)
    add_features(other, features)
    for record in other.records():
        assert record.start is None
    result = report_timeline(other, tmp_path / "who.html", person="Anna")
    assert result["notes"] == ["3 of 3 tracklets have no time"]
    assert "Cameras over time" not in (tmp_path / "who.html").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(footage, tmp_path, scheme):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra [test]")
    page = tmp_path / "who.html"
    report_timeline(footage[0], page, tracklet="Anna/gate/0000", top=5)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab, complaints = browser.new_page(color_scheme=scheme), []
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
        tab.goto(Path(page).as_uri())
        assert tab.locator(".sightings li").count() == 6
        widths = tab.eval_on_selector_all(
            ".sightings img", "images => images.map(image => image.naturalWidth)"
        )
        assert widths == [3 * 64] * 6
        tab.locator(".lanes a").nth(2).click()
        assert tab.evaluate("location.hash") == "#s2"
        assert complaints == []
        browser.close()
