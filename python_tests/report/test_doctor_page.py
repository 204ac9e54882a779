"""The page and the command of `vreid doctor`, on a set whose names must not be taken for markup."""

import json
from urllib.parse import unquote

import pytest
import torch

from vreid_ext.engine.doctor import CHECKS, Finding, Group, of_arrays, of_run
from vreid_ext.engine.features import export_features
from vreid_ext.report.doctor import write_doctor_page


@pytest.fixture(scope="module")
def features(run, tmp_path_factory):
    """The folder of the features of the run."""
    (stored,) = export_features(run, tmp_path_factory.mktemp("stored") / "features", ["eval.frames=[2]"])
    return stored.folder


def test_the_page_shows_what_was_found(run, tmp_path):
    subject = of_run(run, ["eval.frames=[2]"])
    groups = (Group("a pair", (0, 9)),)
    findings = [
        Finding("split", "warning", "a <b>pair</b>", {"power": 0.51234567}, "Look.", groups),
        Finding("camera", "skipped", "needs cameras", {}),
        Finding("finite", "ok", "all rows", {"rows": 3}),
    ]
    page = tmp_path / "a page" / "doc & tor.html"
    write_doctor_page(page, subject, findings)
    text = page.read_text(encoding="utf-8")
    assert "1 of 3 checks found something" in text
    assert "a &lt;b&gt;pair&lt;/b&gt;" in text
    assert "0.5123" in text
    assert "<img src=x" not in text  # a name of the set
    assert "<script" not in text
    for number in (0, 9):
        (strip,) = {part for part in text.split('"') if part.endswith(_strip(subject, number))}
        assert (page.parent / unquote(strip)).is_file()


def _strip(subject, number):
    from vreid_ext.report.strips import strip_name

    return strip_name(subject.records[number])


def test_a_page_without_pictures_lists_names(tmp_path):
    subject = of_arrays(torch.eye(4), [1, 1, 2, 2], [1, 2, 1, 2], names=["a", "b", "c", "<d>"])
    write_doctor_page(
        tmp_path / "page.html", subject, [Finding("split", "error", "s", {}, "r", (Group("g", (3,)),))]
    )
    text = (tmp_path / "page.html").read_text()
    assert "&lt;d&gt;: person 2, camera 2" in text
    assert "<img" not in text
    assert not (tmp_path / "page_files").exists()


def test_the_command_reports_in_text_json_page_and_exit_code(vreid, run, features, tmp_path):
    out = tmp_path / "pages"
    code, output, errors = vreid("doctor", run, "eval.frames=[2]", "--out", out, "--json")
    result = json.loads(output)
    assert [each["check"] for each in result["checks"]] == [check.name for check in CHECKS]
    found = [each for each in result["checks"] if each["severity"] in ("error", "warning")]
    assert result["found"] == len(found)
    assert code == (3 if found else 0), errors
    assert result["page"] == str(out / "doctor.html")
    assert (out / "doctor.html").is_file()
    assert all(each["remedy"].endswith(".") for each in found)

    code, output, errors = vreid("doctor", features, "--check", "finite", "--check", "constant")
    assert (code, errors) == (0, "")
    assert "0 of 2 checks found something" in output
    assert "page" not in output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--check", "colour"], "checks: expected one of finite, "),
        (["--limit", "0"], "limit: expected an int >= 1"),
        (["seed=1"], "KEY=VALUE: expected none with a folder of features"),
        (["--features", "elsewhere"], "--features: expected none with a folder of features"),
        (["--dataset-root", "elsewhere"], "--dataset-root: expected none with a folder of features"),
    ],
)
def test_bad_options_are_one_line(vreid, features, arguments, says):
    code, output, errors = vreid("doctor", features, *arguments)
    assert (code, output) == (1, "")
    assert says in errors
    assert errors.count("\n") == 1


def test_a_folder_that_is_neither_is_named(vreid, tmp_path):
    code, _, errors = vreid("doctor", tmp_path)
    assert code == 1
    assert "checkpoint: expected a checkpoint, a run that contains one, or a network file" in errors
