"""The page in headless Chromium, where there is one: it loads quietly, and queries can be looked at."""

import shutil
import time

import pytest
import torch
from PIL import Image

from vreid_ext import metrics
from vreid_ext.data import Tracklet, TrackletDataset
from vreid_ext.engine import load_recipe
from vreid_ext.engine.comparison import ids
from vreid_ext.engine.evaluate import Evaluated
from vreid_ext.report.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra [test]")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, page):
    """Opens the report; what it complains of, or asks of a network, fails the test."""
    tab, complaints = browser.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("requestfailed", lambda request: complaints.append(request.url))
    tab.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
    tab.goto(page[0].as_uri())
    yield tab
    assert tab.title() == "vtest_sta on tracklet_folder"  # no name of the data set ran as a script
    tab.close()
    assert complaints == []


def heading(tab) -> str:
    return tab.inner_text("#shown h3 >> nth=0")


def test_a_query_is_chosen_by_keyboard(opened):
    first = heading(opened)
    opened.focus("#query")
    opened.keyboard.press("ArrowDown")
    assert heading(opened) != first
    assert opened.evaluate("location.hash") == "#q=1"
    opened.click("#previous")
    assert heading(opened) == first
    assert opened.is_disabled("#previous")


def test_names_are_shown_as_they_are(opened):
    assert "<img src=x onerror=\"document.title='owned'\"> & 'q'" in heading(opened)


def test_the_list_says_hit_miss_and_junk_in_words(opened):
    kinds = set(opened.locator(".place .kind").all_inner_texts())
    assert {kind.split(" · ")[-1] for kind in kinds} <= {"hit", "miss", "junk"}
    assert {kind.split(" · ")[0] for kind in kinds} >= {"1", "2", "3"}


def test_frames_appear_on_focus_and_on_hover_and_go_with_escape(opened):
    assert opened.is_hidden("#frames")
    opened.focus(".place >> nth=0")
    assert "3 of 3 frames" in opened.inner_text("#frames p")
    held = opened.inner_text("#frames p")
    opened.keyboard.press("ArrowRight")
    assert opened.inner_text("#frames p") != held
    opened.wait_for_function("document.querySelector('#frames img').naturalWidth === 3 * 64")
    opened.keyboard.press("Escape")
    assert opened.is_hidden("#frames")
    opened.hover(".place >> nth=1")
    assert opened.is_visible("#frames")


def test_queries_are_searched_and_ordered(opened):
    opened.fill("#filter", "5 <img")
    assert opened.inner_text("#count") == "2 of 8"
    assert heading(opened).startswith("query/5 <img")
    opened.fill("#filter", "nobody")
    assert opened.inner_text("#count") == "0 of 8"
    opened.fill("#filter", "")
    opened.select_option("#order", "hardest")
    rates = [
        float(text.split("AP ")[1].split()[0]) for text in opened.locator("#query option").all_inner_texts()
    ]
    assert rates == sorted(rates)


def test_a_hard_failure_leads_to_its_list(opened):
    link = opened.locator("#hardest a").nth(1)
    link.click()
    assert heading(opened) == link.inner_text().strip()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in(browser, page, scheme):
    tab = browser.new_page(color_scheme=scheme)
    tab.goto(page[0].as_uri())
    luminance = """color => {
        const [r, g, b] = color.match(/\\d+/g).map(v => v / 255)
            .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    }"""
    ground = tab.evaluate(f"({luminance})(getComputedStyle(document.body).backgroundColor)")
    for element in ("h1", ".quiet", ".hit .kind", ".miss .kind", "#results svg text"):
        style = "fill" if "svg" in element else "color"
        ink = tab.evaluate(f"({luminance})(getComputedStyle(document.querySelector('{element}')).{style})")
        contrast = (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)
        assert contrast >= 4.5, element  # WCAG 2, level AA
    assert (ground < 0.1) == (scheme == "dark")
    tab.close()


@pytest.mark.slow
def test_ten_thousand_gallery_tracklets_load_at_once_and_pictures_on_demand(browser, tmp_path):
    page = large_page(tmp_path)
    tab, asked = browser.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    start = time.perf_counter()
    tab.goto(page.as_uri())
    assert heading(tab)
    seconds = time.perf_counter() - start
    print(f"{page.stat().st_size / 2**20:.1f} MiB, shown after {seconds:.1f} s, {len(asked)} files asked for")
    assert seconds < 10
    assert 20 < len(asked) < 200
    assert len(list(tmp_path.glob("*_files/*.jpg"))) > 1000
    tab.fill("#filter", "query-1999")
    assert heading(tab) == "query-1999"
    tab.close()


def large_page(folder):
    """2,000 queries against 10,000 gallery tracklets of one image each."""
    images = [folder / f"{number}.png" for number in range(12_000)]
    for number, image in enumerate(images):
        Image.new("RGB", (8, 16), (number % 256, number // 256, 0)).save(image)
    tracklets = [
        Tracklet((str(image),), number % 625, number // 625 % 6, f"{kind}-{number}")
        for kind, part in (("query", images[:2000]), ("gallery", images[2000:]))
        for number, image in enumerate(part)
    ]
    query, gallery = tracklets[:2000], tracklets[2000:]
    data = TrackletDataset("own", str(folder), [], query, gallery, "made up")
    generator = torch.Generator().manual_seed(0)
    q, g = (torch.randn(len(part), 16, generator=generator) for part in (query, gallery))
    result = metrics.evaluate(q, g, *ids(data))
    row = {"frames": 1, "sampling": "evenly", "mAP": result.mAP, "mINP": result.mINP, "rank1": result.rank(1)}
    row |= {
        "queries": 2000,
        "valid_queries": result.valid_queries,
        "gallery": 10_000,
        "cmc": result.cmc.tolist(),
    }
    figures = {"recipe": "large", "dataset": "own", "protocol": "", "junk": True, "metric": "cosine"}
    figures |= {"ap": "precision", "paper": "", "checkpoint": "", "rows": [row]}
    nowhere, recipe = torch.full((2000,), -1), load_recipe("synth_sta")
    evaluated = Evaluated(torch.nn.Identity(), data, recipe, 1, q, g, nowhere, result)
    write_page(folder / "large.html", evaluated, figures)
    return folder / "large.html"
