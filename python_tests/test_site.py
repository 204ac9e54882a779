"""The rendering of the site: formulas, links, and that a page loads nothing from elsewhere."""

import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", SITE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


formulas, site_links = loaded("formulas"), loaded("links")


def shape(text):
    """A formula as nested tags and texts, without rows."""

    def of(element):
        inside = "".join(map(of, element)) or (element.text or "")
        return inside if element.tag in ("mrow", "math") else f"{element.tag[1:]}({inside})"

    return of(ET.fromstring(formulas.mathml(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x_a", "sub(i(x)i(a))"),
        ("y_ic", "sub(i(y)i(i)i(c))"),
        ("D_ij = ||x_i - x_j||", "sub(i(D)i(i)i(j))o(=)o(‖)sub(i(x)i(i))o(−)sub(i(x)i(j))o(‖)"),
        ("sum_{h,w} q", "under(o(∑)i(h)o(,)i(w))i(q)"),
        ("1/L q", "frac(n(1)i(L))i(q)"),
        ("a / b", "i(a)o(/)i(b)"),
        ("||R R^T - I||_F^2", "o(‖)i(R)sup(i(R)o(⊤))o(−)i(I)subsup(o(‖)i(F)n(2))"),
        ("sqrt(S)", "sqrt(i(S))"),
        ("x_AN(a)", "sub(i(x)text(AN)o(()i(a)o()))"),
        ("D'(i,j)", "sup(i(D)o(′))o(()i(i)o(,)i(j)o())"),
        ("R*(i)", "sup(i(R)o(∗))o(()i(i)o())"),
        ("x * y", "i(x)o(⋅)i(y)"),
        ("x.y", "i(x)o(⋅)i(y)"),
        ("[z]_+", "sub(o([)i(z)o(])o(+))"),
        ("h_1 <= k", "sub(i(h)n(1))o(≤)i(k)"),
        ("1e-5", "sup(n(10)o(−)n(5))"),
    ],
)
def test_a_formula_has_the_structure_that_its_text_means(text, expected):
    assert shape(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "ROOT/bbox_train/0001/0001C1T0001F001.jpg     person, camera, tracklet, frame",
        '"evenly"          equal steps from first to last frame',
        '{"joints": 14 names, "tracklets": {name: frames x 14}}',
        "clip    (T,3,H,W) float32",
        "@draw_attended.register\ndef _(attended: MyAttended, path: Path) -> Path: ...",
    ],
)
def test_other_blocks_stay_as_they_are(text):
    assert formulas.block(text) is None


def test_a_block_has_rows_and_cells():
    html = formulas.block('"a"   Q = x_i,\n      y\nR = S      T = U')
    rows = ET.fromstring(html)
    assert [len(row) for row in rows] == [2, 2]
    assert rows[0][0].text == '"a"'


@given(st.text(alphabet="xyT1_^{}()[]|/=+-*,.#'\" sumsqrt<>&", max_size=40))
def test_any_text_is_well_formed(text):
    ET.fromstring(formulas.mathml(text))


@given(
    st.lists(st.sampled_from(["x_a", "||y||", "[z]_+", "1/L", "w^2", "(a, b)", "d of", "- e"]), max_size=9)
)
def test_no_letter_is_lost(parts):
    text = " ".join(parts)
    shown = "".join(ET.fromstring(formulas.mathml(text)).itertext())
    assert sorted(filter(str.isalnum, shown)) == sorted(filter(str.isalnum, text))


def docstring_blocks():
    import ast

    for file in sorted((ROOT / "vreid_ext").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and (doc := ast.get_docstring(node)):
                for block in re.findall(r"(?<=\n\n) {4}\S.*(?:\n|$)(?: {4}.*(?:\n|$))*", doc):
                    yield file.name, node.name, re.sub(r"^ {4}", "", block, flags=re.MULTILINE)


def test_the_formulas_of_the_docstrings_are_rendered():
    rendered = {name for _, name, block in docstring_blocks() if formulas.block(block)}
    assert {"sta_pool", "evaluate", "OIMLoss", "k_reciprocal", "part_distance", "region_pool"} <= rendered
    assert not {"cuhk03", "market1501", "ClipDataset"} & rendered
    for _, _, block in docstring_blocks():
        if html := formulas.block(block):
            ET.fromstring(html)


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("design.md", "extending.md", "extending.md"),
        ("design.md", "../CHANGELOG.md", "changelog.md"),
        ("design.md", "../python_tests/test_site.py", "files/python_tests/test_site.py"),
        ("reference/ops.md", "../../README.md", "../index.md"),
        ("index.md", "docs/img/x.png", "img/x.png"),
        ("index.md", "https://a.org/docs/x.md", "https://a.org/docs/x.md"),
    ],
)
def test_links_lead_to_the_place_in_the_site(page, link, expected):
    assert site_links.Links(page).rewritten(link) == expected


def test_names_of_the_reference_are_linked():
    assert site_links.linked("see `ops.sta_pool`.") == "see [`ops.sta_pool`][vreid_ext.ops.sta_pool]."
    assert site_links.linked("`STAPool`") == "[`STAPool`][vreid_ext.ops.STAPool]"
    for other in ("`rank`", "`x`", "``ops.sta_pool``", "[`ops.sta_pool`][a]", "`ops.none`"):
        assert site_links.linked(other) == other


def test_what_a_page_loads_from_elsewhere_is_found(tmp_path):
    check = loaded("check")
    (tmp_path / "a.html").write_text(
        '<a href="https://a.org">a</a><script src="https://b.org/x.js"></script><link href="//c.org/x.css">'
        '<img src="img/x.png"><link rel="canonical" href="https://d.org">'
    )
    (tmp_path / "b.css").write_text("@import 'https://e.org/x.css'; a {background: url(data:image/png;)}")
    assert check.loaded_from_elsewhere(tmp_path) == [
        "a.html: https://b.org/x.js", "a.html: //c.org/x.css", "b.css: https://e.org/x.css"
    ]  # fmt: skip
