import json
import sys

import pytest
from safetensors.torch import load_file

from vreid_ext import cli


@pytest.fixture
def vreid(monkeypatch, capsys):
    """Run the command in this process: (exit code, output, errors)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vreid", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        else:
            code = 0
        return code, *capsys.readouterr()

    return run


def test_from_images_to_figures_and_features(vreid, tmp_path):
    data, run = tmp_path / "a set", tmp_path / "run"
    made = vreid(
        "synth", data, "--ids", 8, "--cameras", 2, "--tracklets", 1, "--frames", 3, "--size", "32x16"
    )
    assert made[0] == 0
    small = [
        "input.height=64",
        "input.width=16",
        "input.frames=2",
        "batch.p=2",
        "model.feature_dim=8",
        "train.epochs=1",
    ]
    code, output, errors = vreid("train", "synth_avg", f"dataset.root={data}", *small, "--out", run)
    assert code == 0, errors
    assert "mAP" in output
    assert "protocol: MARS" in output

    moved = data.rename(tmp_path / "moved [here]")
    code, output, errors = vreid(
        "eval", run, "eval.frames=[2,3]", "eval.ap=trapezoid", "--dataset-root", moved
    )
    assert code == 0, errors
    figures = json.loads((run / "eval-mars-evenly-2-3.json").read_text())
    assert [row["frames"] for row in figures["rows"]] == [2, 3]
    assert figures["ap"] == "trapezoid"

    code, _, errors = vreid("extract", run, "--out", tmp_path / "features", "--dataset-root", moved)
    assert code == 0, errors
    manifest = json.loads((tmp_path / "features" / "manifest.json").read_text())
    features = load_file(tmp_path / "features" / "features.safetensors")
    for split in ("query", "gallery"):
        assert features[split].shape == (len(manifest["splits"][split]), 8)
    again = vreid("extract", run, "--out", tmp_path / "features", "--dataset-root", moved)
    assert again[0] == 1
    assert "wanted a new or an empty folder" in again[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "sta_marz"), "nearest: sta_mars"),
        (("train", "sta_mars", "train.epoch=1"), "nearest known key: 'train.epochs'"),
        (("train", "sta_mars"), "dataset.root=DIR"),
        (("eval", "nowhere"), "neither a checkpoint nor a run"),
        (("synth", "out", "--size", "big"), "--size: got 'big', wanted HEIGHTxWIDTH"),
    ],
)
def test_an_error_is_one_line_and_a_traceback_only_with_debug(vreid, arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = vreid(*arguments)
    assert code == 1
    assert errors.startswith("vreid: error: ")
    assert says in errors
    assert errors.count("\n") == 1
    with pytest.raises(ValueError, match=r"got|nearest|neither"):
        vreid("--debug", *arguments)


def test_wrong_usage_has_its_own_exit_code(vreid):
    assert vreid("train")[0] == 2
    assert vreid("fly")[0] == 2


def test_without_typer_the_command_says_what_to_install(vreid, monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    assert vreid("info") == (1, "", "vreid: error: typer is not installed: pip install 'vreid-ext[train]'\n")


@pytest.mark.parametrize(("module", "extra"), [("accelerate.state", "train"), ("cv2", "video")])
def test_a_missing_extra_is_named(vreid, monkeypatch, module, extra):
    def app():
        raise ModuleNotFoundError(name=module)

    monkeypatch.setattr(cli, "_app", app)
    code, _, errors = vreid("train", "sta_mars")
    assert code == 1
    assert errors.endswith(f"is not installed: pip install 'vreid-ext[{extra}]'\n")


def test_recipes_are_listed_with_their_source(vreid):
    code, output, _ = vreid("recipes")
    assert code == 0
    assert "sta_mars_k8" in output
    assert "STA, Table 3, K = 8" in output


def test_info_says_what_is_usable_and_why_not(vreid):
    code, output, errors = vreid("info")
    assert code == 0, errors
    for word in ("vreid_ext", "torch", "threads", "sta_pool", "reference", "triton"):
        assert word in output
