import json
import unicodedata
from types import SimpleNamespace

import pytest

from vreid_ext.data import Tracklet
from vreid_ext.engine.figures import read_result
from vreid_ext.report.figures import cmc_curves, draw_cmc, query_of
from vreid_ext.report.style import wrapped


def figures(path, recipe, cmc=(0.5, 1.0), lengths=(4,)):
    path.write_text(json.dumps({"recipe": recipe, "rows": [{"frames": n, "cmc": cmc} for n in lengths]}))
    return path


def test_runs_of_one_recipe_are_told_apart_by_their_place(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    results = [figures(run / "result.json", "one").parent, figures(tmp_path / "b.json", "one", [0.25])]
    drawn = draw_cmc([*results, figures(tmp_path / "c.json", "two")], tmp_path / "cmc.svg").read_text()
    for label in (f"{run}, rank-1 50.0 %", f"{tmp_path / 'b.json'}, rank-1 25.0 %", "two, rank-1 50.0 %"):
        assert all(f"<!-- {line} -->" in drawn for line in wrapped(label).split("\n"))


def test_curves_name_the_test_length_where_there_are_several():
    row = {"label": "a", "cmc": [0.5, 0.75, 1.0]}
    assert cmc_curves([{**row, "frames": 4}], 2) == {"a": [0.5, 0.75]}
    assert list(cmc_curves([{**row, "frames": 4}, {**row, "frames": 8}], 2)) == ["a, 4 frames", "a, 8 frames"]


def test_what_holds_no_figures_is_named(tmp_path):
    (tmp_path / "torn.json").write_text('{"rows": [')
    (tmp_path / "other.json").write_text("[1]")
    for name, says in (
        ("", "expected a finished run or the JSON"),
        ("torn.json", "expected JSON in"),
        ("other.json", "which has no rows"),
    ):
        with pytest.raises(ValueError, match=says):
            read_result(tmp_path / name)
    with pytest.raises(ValueError, match=r"ranks: expected .*, got 0"):
        draw_cmc([tmp_path / "torn.json"], tmp_path / "cmc.svg", ranks=0)


def test_a_query_is_found_by_name_before_number():
    queries = [Tracklet(("a.jpg",), 1, 1, name) for name in ("0002C1T0001", "0", "0004C1T0001")]
    dataset = SimpleNamespace(query=queries)
    assert query_of(dataset, "0004C1T0001") is queries[2]
    assert query_of(dataset, "0") is queries[1]
    assert query_of(dataset, "2") is queries[2]
    with pytest.raises(ValueError, match=r"such as 0002C1T0001, .* or a number from 0 to 2"):
        query_of(dataset, "0002C1T0003")


def test_a_query_is_found_by_another_spelling_but_not_by_a_name_of_two():
    names = [unicodedata.normalize("NFD", "josé"), "anna", "anna"]
    dataset = SimpleNamespace(query=[Tracklet((f"{n}.jpg",), 1, 1, name) for n, name in enumerate(names)])
    assert query_of(dataset, unicodedata.normalize("NFC", "josé")) is dataset.query[0]
    with pytest.raises(ValueError, match="query: expected a name of one tracklet, got 'anna', of 2"):
        query_of(dataset, "anna")
