"""What the documentation states: times come from the rows of the benchmarks, the drawing from the imports."""

import json
import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.fixture(scope="module")
def tables():
    return runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))


@pytest.fixture(scope="module")
def drawing():
    return runpy.run_path(str(ROOT / "docs" / "draw_packages.py"))


def test_tables_are_those_of_the_rows(tables):
    """If this fails: python benchmarks/tables.py."""
    shown = tables["runs"]()
    for page in tables["pages"]():
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- table: ") == len(tables["BLOCK"].findall(text)), page.name
        assert tables["fill"](page, text, shown) == text, page.name


def test_every_table_stands_once(tables):
    found = [
        name
        for page in tables["pages"]()
        for _, name, _ in tables["BLOCK"].findall(page.read_text(encoding="utf-8"))
    ]
    accuracy = ["adaptation gain", "adaptation rounds"]
    accuracy += [
        f"accuracy {file.stem} {group}"
        for file in (tables["RESULTS"] / "accuracy").glob("*.json")
        if file.stem != "adaptation"
        for group in {row["group"] for row in json.loads(file.read_text())["rows"]}
    ]
    others = [
        "summary",
        "best and worst",
        "plan",
        tables["DEPLOYMENT"],
        tables["PRODUCTS"],
        tables["STREAMS"],
    ]
    others += tables["ENGINES"]
    known = [*tables["TABLES"], *others, *accuracy]
    assert sorted(found) == sorted(known)


def test_pictures_are_those_of_the_rows(tables):
    """If this fails: python benchmarks/plot.py. In an SVG file of matplotlib, comments repeat each text."""
    text = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    for file in tables["RESULTS"].glob("*.json"):
        content = json.loads(file.read_text())
        picture = tables["PICTURES"] / f"bench_{file.stem}.svg"
        comments = re.findall(r"<!-- (.*?) -->", picture.read_text())
        assert picture.name in text
        for row in content["rows"]:
            if row["provider"] == "ours":
                assert row["case"] in comments
                assert tables["duration"](row["median"]) in comments
        for fact in ("cpu", "date", "commit"):
            assert any(content["machine"].get(fact, "") in each for each in comments)


def rows(cpu, date, commit, times, machine=()):
    return {
        "machine": {"cpu": cpu, "date": date, "commit": commit, "threads": 2, "torch": "2", **dict(machine)},
        "rows": [
            {"case": case, "provider": provider, "median": ratio * ours, "per_ours": ratio}
            for case, (ours, ratios) in times.items()
            for provider, ratio in {"ours": 1.0, **ratios}.items()
        ],
    }


def test_the_newest_row_of_each_machine_is_shown(tables, tmp_path):
    content = {
        "mining_old": rows("A", "2020-01-01", "old", {"n = 1": (1.0, {"cdist": 2.0}), "n = 2": (1.0, {})}),
        "mining_new": rows("A", "2020-02-01", "new", {"n = 1": (2.0, {"cdist": 0.5})}),
        "mining_gpu": rows("A", "2019-01-01", "gpu", {"n = 1": (3.0, {"cdist": 4.0})}, {"gpu": "B"}.items()),
    }
    for name, each in content.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(each))
    shown = tables["runs"](tmp_path)
    cases = [(run.device, run.machine["commit"], list(run.cases)) for run in shown["triplet loss"]]
    assert cases == [
        *(("A, 2 threads", "new", ["n = 1"]), ("A, 2 threads", "old", ["n = 2"])),
        ("B", "gpu", ["n = 1"]),
    ]
    text = "\n".join(tables["summary"](shown, lambda file: file.name))
    assert "| **0.50 x** cdist (n = 1) | the same |" in text
    assert "A, 2 threads; [commit new, 2020-02-01, torch 2](mining_new.json)" in text
    assert "| B; [commit gpu" in text


def test_rates_and_cosines_are_columns(tables, tmp_path):
    case = "train STA, 16 clips of 4, precision"
    content = rows("A", "2020-01-01", "c", {case: (500.0, {"bfloat16": 0.5})})
    content["rows"][1]["cosine"] = 0.99991
    (tmp_path / "steps_a.json").write_text(json.dumps(content))
    (run,) = tables["runs"](tmp_path)["precision"]
    assert tables["measured"](tables["TABLES"]["precision"], run) == [
        "| case | clips per second | vreid_ext | bfloat16 | cosine, bfloat16 |",
        "|---|---|---|---|---|",
        f"| {case} | 32.0 | 500 ms | **0.50 x** | 0.99991 |",
    ]
    with pytest.raises(ValueError, match=r"^case: expected a number of clips, got 'train STA'"):
        tables["_rate"]("train STA", "clips", 1.0)


def test_the_best_and_the_worst_case_over_all_cpus(tables, tmp_path):
    content = {
        "mining_a": rows("A", "2020-01-01", "c", {"n = 1": (1.0, {"cdist": 2.0, "other": 3.0})}),
        "mining_b": rows(
            "B", "2020-01-01", "c", {"n = 1": (1.0, {"cdist": 0.5}), "n = 2": (1.0, {"cdist": 4})}
        ),
        "mining_gpu": rows("A", "2020-01-01", "c", {"n = 3": (1.0, {"cdist": 9.0})}, {"gpu": "G"}.items()),
    }
    for name, each in content.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(each))
    assert tables["best_and_worst"](tables["runs"](tmp_path))[2:] == [
        "| `losses.TripletLoss` | 4.00 x cdist (n = 2) | **0.50 x** cdist (n = 1) | 3 on 2 CPUs |"
    ]


def test_rows_that_no_table_shows_are_an_error(tables, tmp_path):
    (tmp_path / "walks.json").write_text(json.dumps(rows("A", "2020-01-01", "c", {"n": (1.0, {})})))
    with pytest.raises(ValueError, match=r"walks.json: expected a name that starts with"):
        tables["runs"](tmp_path)
    (tmp_path / "walks.json").rename(tmp_path / "ranking.json")
    with pytest.raises(ValueError, match=r"ranking.json: expected one table for the case 'n'"):
        tables["runs"](tmp_path)


_NUMBER = r"(?:\d[\d.,]*|one|two|three|four|five|six|seven|eight|nine|ten|twenty|thirty)"
TIMES = re.compile(
    rf"\b{_NUMBER}(?: to {_NUMBER})?[ -](?:ns|us|µs|ms|s|sec|seconds?|min|minutes?|h|hours?|days?)\b"
    rf"|\b{_NUMBER} (?:x|times) (?:faster|slower|as fast|as long|the time|of the time)"
    r"|\b\d[\d.,]* x(?= [a-z|(]| *$|[.,;:)])"  # 1.6 x eager, but not 16 x 8
    r"|\b\d[\d.,]* [KMGT]?(?:FLOP|flop|B|iB)/s\b"
    r"|\b\d[\d.,]* % (?:faster|slower|of the time|less time|more time)",
    re.MULTILINE,
)

# Figures that are no measurement of this package, by page.
ALLOWED = {
    ("scale.md", "1 GB/s"): "an assumption, which the text says",
    ("gpu.md", "650 ns"): "an assumption, which the text says",
    ("gpu.md", "600 ns"): "an assumption, which the text says",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_times_stand_in_generated_tables_only(tables, page):
    text = tables["BLOCK"].sub("", page.read_text(encoding="utf-8"))
    found = [each[0] for each in TIMES.finditer(text) if (page.name, each[0]) not in ALLOWED]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "takes 0.9 ms",
            "five minutes",
            "1 to 2 hours",
            "3.4 us",
            "an 8-minute run",
            "298 GFLOP/s",
            "2 GB/s",
        ),
        *("others take 1.6 x", "eager 3.3 x |", "5 times as long", "two times faster", "10 % faster"),
    ],
)
def test_a_time_is_found(text):
    assert TIMES.search(text)


@pytest.mark.parametrize(
    "text", ["16 x 8 cells", "(16,4,2048,16,8)", "2 persons x 2 clips", "3 x 3", "10 % of"]
)
def test_a_size_is_no_time(text):
    assert not TIMES.search(text)


_PATH = re.compile(r"(?<![\w/.-])(?:csrc|vreid_ext|python_tests|benchmarks|docs|release)/[\w/.-]*\w")
_MODULE = re.compile(r"`(\w+/[\w/]+\.py)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page):
    """Paths from the root, and modules such as `ops/ranking.py`; not the files that an example writes."""
    text = page.read_text(encoding="utf-8")
    written = set(re.findall(r"```python file (\S+)", text))
    modules = {f"vreid_ext/{path}" for path in _MODULE.findall(text) if not _PATH.match(path)}
    paths = {path for path in _PATH.findall(text) if not re.search("[A-Z]{3}", path)} | modules
    assert [path for path in sorted(paths - written) if not (ROOT / path).exists()] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_drawing_shows_the_imports(drawing):
    """If this fails: python docs/draw_packages.py."""
    graph = drawing["packages"]()
    text = drawing["PICTURE"].read_text(encoding="utf-8")
    root = ET.fromstring(text)
    boxes = {
        each.get("data-package"): set(each.get("data-imports").split())
        for each in root.iter()
        if each.get("data-package")
    }
    assert boxes == graph
    arrows = {(each.get("data-from"), each.get("data-to")) for each in root.iter() if each.get("data-from")}
    assert arrows == set(drawing["arrows"](graph))
    assert text == drawing["svg"](graph)


def test_no_import_goes_back(drawing):
    assert drawing["cycles"](drawing["packages"]()) == []


def test_imports_are_read_from_the_code(drawing, tmp_path):
    files = {
        "__init__": "from vreid_ext import ops",
        "_checks": "import torch",
        "ops/__init__": "from vreid_ext.backends import reference\nfrom .. import _checks",
        "backends/__init__": "",
        "backends/native/__init__": "def f():\n    from vreid_ext import _native",
        "backends/reference/__init__": "from vreid_ext.backends.codes import X",
        "backends/codes": "X = 1",
        "demo": "import vreid_ext.ops as o",
        "_files": "from vreid_ext._checks import f",
    }
    for name, text in files.items():
        path = tmp_path / "vreid_ext" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert drawing["packages"](tmp_path) == {
        "ops": {"backends.reference", "base"},
        "base": set(),  # _checks and _files
        "demo": {"ops"},
        "backends": set(),
        "backends.native": {"_native"},
        "backends.reference": {"backends"},
        "_native": set(),
    }


def test_arrows_that_follow_from_others_are_left_out(drawing):
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d", "b"}, "d": set()}
    assert drawing["cycles"](graph) == [{"b", "c"}]
    assert drawing["levels"](graph) == {"a": 2, "b": 1, "c": 1, "d": 0}
    assert set(drawing["arrows"](graph)) >= {("b", "c"), ("c", "b"), ("c", "d")}
    assert ("a", "d") not in drawing["arrows"](graph)
