"""Figures of each query in files, and the comparison of the runs that they belong to."""

import json

import pytest

from vreid_ext.engine.figures import read_queries, read_result, write_figures
from vreid_ext.engine.run_comparison import (
    compare_runs,
    differences_or_reason,
    in_percent,
    runs_of,
    summary,
)


def evaluation(path, ap, *, pids=None, lengths=(4,), **rules):
    """Files of an evaluation with these AP (None: skipped); a match is at rank 1 where AP is above 0.5."""
    valid = [value for value in ap if value is not None]
    hits = [0 if value is None else 1 if value > 0.5 else 7 for value in ap]
    names = [f"tracklet {number}" for number in range(len(ap))]
    per_query = {"name": names, "pid": pids or list(range(len(ap))), "ap": ap, "first_hit": hits}
    row = {"queries": len(ap), "valid_queries": len(valid), "mAP": sum(valid) / len(valid)}
    rows = [{"frames": frames, **row, "per_query": per_query} for frames in lengths]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_figures(path, {"protocol": "all", "junk": True, "ap": "precision", **rules, "rows": rows})


def test_figures_of_each_query_are_kept_beside_the_figures(tmp_path):
    written = evaluation(tmp_path / "run" / "result.json", [0.1 + 0.2, None, 1.0])
    assert written["per_query"] == "result.queries.json"
    assert written == read_result(tmp_path / "run")
    assert "per_query" not in written["rows"][0]
    (queries,) = read_queries(tmp_path / "run")
    assert queries["name"] == ["tracklet 0", "tracklet 1", "tracklet 2"]
    assert queries["first_hit"] == [7, 0, 1]
    assert queries["ap"][0] == 0.1 + 0.2
    assert queries["ap"][1] != queries["ap"][1]
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert read_queries(moved)[0]["pid"] == [0, 1, 2]


def test_an_evaluation_writes_what_it_returns_with_its_mean(tiny_recipe, tmp_path):
    from vreid_ext import engine

    run = tmp_path / "run"
    trained = engine.train(tiny_recipe(), run, quiet=True)
    assert trained == read_result(run)
    evaluated = engine.evaluate_checkpoint(run, ["eval.frames=[1,2]"])
    assert evaluated["per_query"] == "eval-mars-evenly-1-2.queries.json"
    for path, result in ((run, trained), (run / "eval-mars-evenly-1-2.json", evaluated)):
        rows = read_queries(path)
        assert len(rows) == len(result["rows"])
        for queries, row in zip(rows, result["rows"], strict=True):
            assert len(set(queries["name"])) == row["queries"]
            assert sum(hit == 1 for hit in queries["first_hit"]) / row["valid_queries"] == row["rank1"]
    assert "per_query" not in (run / "log.jsonl").read_text()
    compared = compare_runs({"trained": [run], "again": [run / "result.json"]})
    assert compared["differences"][0]["mAP"] == {"value": 0, "low": 0, "high": 0, "decided": False}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda file: file.unlink(),
            "expected figures of each query next to .*got none; run `vreid eval` again",
        ),
        (lambda file: file.write_text("[{"), "expected JSON in"),
        (lambda file: file.write_text("[]"), "expected figures of each query in .*run `vreid eval` again"),
        (lambda file: file.write_text("[{}]"), "expected figures of each query in .*run `vreid eval` again"),
        (lambda file: file.write_text(file.read_text().replace("0.25", "0.5")), "of another evaluation"),
    ],
)
def test_missing_or_damaged_figures_of_queries(tmp_path, damage, says):
    evaluation(tmp_path / "a.json", [0.25, 1.0])
    damage(tmp_path / "a.queries.json")
    with pytest.raises(ValueError, match=says):
        read_queries(tmp_path / "a.json")
    (entry,) = differences_or_reason({label: [tmp_path / "a.json"] for label in ("first", "other")})
    assert summary(entry).startswith("other minus first: no interval: result: expected ")


def test_older_figures_without_those_of_queries(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"rows": []}))
    with pytest.raises(ValueError, match=r"got none; run `vreid eval` again"):
        read_queries(tmp_path)


def test_rows_are_compared_with_the_first(tmp_path):
    ap = [0.2, 0.4, 0.6, 0.8] * 10
    for name, shift in (("a", 0.0), ("b-0", 0.05), ("b-1", 0.07), ("c", -0.05)):
        evaluation(tmp_path / f"{name}.json", [value + shift for value in ap], lengths=(2, 4))
    rows = {"a": ["a"], "b": ["b-0", "b-1"], "c": ["c"]}
    result = compare_runs(
        {label: [tmp_path / f"{name}.json" for name in names] for label, names in rows.items()}, resamples=500
    )
    assert [row["label"] for row in result["rows"]] == [*"abcabc"]
    assert [row["frames"] for row in result["rows"]] == [2, 2, 2, 4, 4, 4]
    assert [len(row["runs"]) for row in result["rows"]] == [1, 2, 1] * 2
    assert {(row["queries"], row["persons"]) for row in result["rows"]} == {(40, 40)}
    assert result["rows"][0]["mAP"]["value"] == pytest.approx(0.5)
    b, c = result["differences"][:2]
    assert (b["label"], b["to"], b["mAP"]["decided"]) == ("b", "a", True)
    assert b["mAP"]["value"] == pytest.approx(0.06)
    assert b["rank1"]["value"] == 0
    assert not b["rank1"]["decided"]
    assert c["mAP"]["high"] == pytest.approx(-0.05)
    assert in_percent(b["mAP"]) == "+6.0 [+5.0, +7.0]"
    assert in_percent(b["rank1"]) == "+0.0 [+0.0, +0.0] not decided"
    assert summary(c).endswith(
        "rank-1 +0.0 [+0.0, +0.0] not decided (40 queries of 40 persons; 95 % intervals)"
    )
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"ap": [0.5, 0.5, 0.5]}, "expected the queries as in .*, got another list of names in"),
        ({"pids": [1, 2]}, "expected the queries as in .*, got another list of pids in"),
        ({"lengths": (4, 8)}, "expected 1 rows as in .*, got 2 in"),
        ({"protocol": "split 2"}, "expected protocol 'all' as in .*, got 'split 2' in"),
    ],
)
def test_evaluations_that_cannot_be_compared(tmp_path, other, says):
    evaluation(tmp_path / "a.json", [0.5, 1.0])
    evaluation(tmp_path / "b.json", **{"ap": [0.5, 1.0], **other})
    with pytest.raises(ValueError, match=says):
        compare_runs({"a": [tmp_path / "a.json"], "b": [tmp_path / "b.json"]})
    with pytest.raises(ValueError, match="runs: expected at least two rows to compare, got 1"):
        compare_runs({"a": [tmp_path / "a.json"]})


def test_runs_of_an_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("seeds/1", "seeds/0", "one", "lr=1"):
        evaluation(tmp_path / name / "result.json", [0.5, 1.0])
    as_text = {text: (label, [*map(str, runs)]) for text in (
        "one", "seeds", "lr=1", "x=one,seeds", "one/result.json", "x=one", "nowhere",
    ) for label, runs in [runs_of(text)]}  # fmt: skip
    assert as_text == {
        "one": ("one", ["one"]),
        "seeds": ("seeds", ["seeds/0", "seeds/1"]),
        "lr=1": ("lr=1", ["lr=1"]),
        "x=one,seeds": ("x", ["one", "seeds/0", "seeds/1"]),
        "one/result.json": ("one/result.json", ["one/result.json"]),
        "x=one": ("x", ["one"]),
        "nowhere": ("nowhere", ["nowhere"]),
    }
    for text in ("=one", "x=one,,seeds", "x="):
        with pytest.raises(ValueError, match=r"runs: expected RUN or LABEL=RUN,RUN, got "):
            runs_of(text)
