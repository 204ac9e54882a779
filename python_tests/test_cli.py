import json
import sys

import numpy as np
import pytest
import torch

from vreid_ext import cli, metrics, ops


def test_splits_are_trained_evaluated_and_averaged(vreid, tmp_path):
    """The protocol of iLIDS-VID on two of its splits, and a model of it on all ten of PRID2011."""
    for layout, frames in (("ilids", 3), ("prid", 28)):
        made = vreid(
            "synth", tmp_path / layout, "--layout", layout, "--ids", 6, "--frames", frames, "--size", "32x16"
        )
        assert made[0] == 0, made[2]
    run = tmp_path / "run"
    small = [
        "model.backbone=resnet18",
        "model.weights=none",
        "input.height=64",
        "input.width=16",
        "input.frames=2",
        "batch.p=2",
        "batch.k=2",
        "train.epochs=1",
        "train.workers=0",
    ]
    asked = ("train", "drsta_ilids_baseline", f"dataset.root={tmp_path / 'ilids'}", *small)
    code, output, errors = vreid(*asked, "--out", run, "--splits", "0,3", "--json")
    assert code == 0, errors
    trained = json.loads(output)
    assert trained["splits"] == [0, 3]
    assert (run / "split-0").is_dir()
    assert (run / "split-3").is_dir()

    code, output, errors = vreid("eval", run, "--splits", "0,3")
    assert code == 0, errors
    row = trained["rows"][0]["rank1"]
    assert "2 splits" in output
    assert f"{100 * row['mean']:.1f} ({100 * row['deviation']:.1f})" in output
    assert "split 4 of 10" in output

    code, _, errors = vreid("eval", run, "--splits", "all")
    assert code == 1
    assert "got none; train it first" in errors

    other = ("dataset.name=prid", f"dataset.root={tmp_path / 'prid'}")
    code, output, errors = vreid("eval", run / "split-0", *other, "--splits", "all", "--json")
    assert code == 0, errors
    summary = json.loads(output)
    assert summary["splits"] == list(range(10))
    for name in ("mAP", "rank1", "rank5"):
        figure = summary["rows"][0][name]
        assert len(figure["splits"]) == 10
        assert figure["mean"] == pytest.approx(sum(figure["splits"]) / 10)


def test_from_images_to_figures_and_features(vreid, tmp_path, monkeypatch):
    monkeypatch.setattr("vreid_ext.report.page.PICTURES", 2)
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
    typo = vreid("train", "synth_avg", f"dataset.root={data}", *small, "model.featuredim=8", "--out", run)
    assert typo[0] == 1
    assert "expected an option of model 'sta' (" in typo[2]
    assert "did you mean 'feature_dim'?" in typo[2]
    assert not run.exists()

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
    assert (run / "eval-mars-evenly-2-3.html").is_file()

    code, output, errors = vreid("plot", "cmc", run, "--out", tmp_path / "plots" / "cmc.svg", "--json")
    assert (code, json.loads(output)) == (0, {"picture": str(tmp_path / "plots" / "cmc.svg")}), errors
    for picture in ("heatmap", "ranking"):
        drawn = tmp_path / "plots" / f"{picture}.png"
        asked = ("plot", picture, run, "--dataset-root", moved, "--out", drawn)
        assert vreid(*asked, "--query", "1")[:2] == (0, f"picture: {drawn}\n")
        assert drawn.stat().st_size > 1000
        code, _, errors = vreid(*asked, "--query", "nobody")
        assert code == 1
        assert "query: expected a name, such as " in errors
        assert "got 'nobody'" in errors

    page = tmp_path / "pages" / "run.html"
    asked = ("report", run, "--dataset-root", moved, "--out", page, "--beside", run)
    code, output, errors = vreid(*asked, "--json")
    assert code == 0, errors
    assert json.loads(output)["page"] == str(page)
    assert f'<th scope="row">{run}</th>' in page.read_text()
    made = {"run.html", "run.json", "run.queries.json", "run_files"}
    assert {path.name for path in page.parent.iterdir()} == made
    assert "+0.0 [+0.0, +0.0] not decided" in page.read_text()
    assert f"synth_avg minus {run}: mAP +0.0 [+0.0, +0.0] not decided" in vreid(*asked)[1]

    drawn = tmp_path / "plots" / "compared.svg"
    sides = ("average=" + str(run), f"both={run},{page.with_suffix('.json')}")
    code, output, errors = vreid("compare", *sides, "--plot", drawn, "--resamples", 100)
    assert code == 0, errors
    assert "difference to average" in output
    assert output.endswith(f"picture: {drawn}\n")
    assert "<!-- difference of mAP (%) -->" in drawn.read_text()
    compared = json.loads(vreid("compare", *sides, "--json")[1])
    assert [row["label"] for row in compared["rows"]] == ["average", "both"]
    assert compared["differences"][0]["mAP"] == {"value": 0, "low": 0, "high": 0, "decided": False}
    assert vreid("compare", run, run)[2].endswith(f"expected each label once, got {str(run)!r} twice\n")
    assert "expected a name that ends in .png or .svg" in vreid("compare", *sides, "--plot", "x.pdf")[2]

    code, output, errors = vreid("export", run, "--format", "torch", "--out", tmp_path / "sta.pt2", "--json")
    assert code == 0, errors
    assert json.loads(output)["dimensions"] == 8
    assert (tmp_path / "sta.pt2").is_file()

    features_folder = tmp_path / "features"
    code, _, errors = vreid("extract", run, "--out", features_folder, "--dataset-root", moved)
    assert code == 0, errors
    stored = metrics.StoredFeatures(features_folder)
    query, gallery = (torch.from_numpy(stored.rows(split)[:]) for split in ("query", "gallery"))
    assert query.shape[1] == gallery.shape[1] == 8

    code, output, errors = vreid(
        "search", features_folder, features_folder, "--top", 2, "--out", tmp_path / "nearest.json"
    )
    assert code == 0, errors
    lists = json.loads((tmp_path / "nearest.json").read_text())
    assert [entry["query"] for entry in lists] == [row["name"] for row in stored.tracklets("query")]
    _, wanted = ops.top_k(query, gallery, 3)
    names = [row["name"] for row in stored.tracklets("gallery")]
    for entry, items in zip(lists, wanted.tolist(), strict=True):
        others = [names[j] for j in items if names[j] != entry["query"]]
        assert [item["name"] for item in entry["nearest"]] == others[:2]
    assert lists[0]["nearest"][1]["name"] in output

    shown = ("eval", run, "--dataset-root", moved, "--no-report", "--json")
    in_memory = json.loads(vreid(*shown)[1])
    from_disk = json.loads(vreid(*shown, "--features", features_folder)[1])
    assert in_memory == from_disk
    again = vreid("extract", run, "eval.frames=3", "--out", features_folder, "--dataset-root", moved)
    assert again[0] == 1
    assert "Existing, new: eval.frames: 2, 3" in again[2] or "eval.frames: 4, 3" in again[2]
    assert vreid(*shown, "--features", features_folder, "--lengths", "1")[0] == 1


def test_from_features_to_answers(vreid, tmp_path):
    from vreid_ext.features.write import store_features

    generator = torch.Generator().manual_seed(0)
    pids = torch.arange(240) // 6
    rows = torch.randn(40, 8, generator=generator)[pids] + 0.5 * torch.randn(240, 8, generator=generator)
    folders = tmp_path / "known", tmp_path / "shifted"
    for folder, part in zip(folders, (rows, rows + 2), strict=True):
        tracklets = [
            {"name": f"t{n}", "pid": int(pid), "camid": n % 2, "frames": 1, "images": ""}
            for n, pid in enumerate(pids)
        ]
        every = list(range(240))
        store_features(
            folder, {"weights": "a", "dataset.name": "own"}, tracklets,
            lambda _, part=part: [{"features": part}],
            splits={"query": every, "gallery": every}, shard_rows=240, metric="cosine", protocol="",
        )  # fmt: skip
    known, shifted = folders
    code, _, errors = vreid("calibrate", known, "--fmr", "1e-5")
    assert code == 1
    assert errors.startswith("vreid: error: fmr: expected at least 0.00036 for 28080 impostor pairs")
    assert errors.count("\n") == 1
    assert vreid("calibrate", known, "--plot", "x.pdf")[2].count("expected a name that ends in .png") == 1
    assert not (known / "threshold.json").exists()
    plain = vreid("search", known, known, "--top", 3)[1]
    assert "same" not in plain

    asked = ("calibrate", known, "--fmr", "0.01", "--resamples", 50)
    code, output, errors = vreid(*asked, "--plot", tmp_path / "rates.svg")
    assert code == 0, errors
    assert "not resolved, fewer than 10 false matches: FPR 0.01, 0.001, 0.0001 %" in output
    assert "by pair of cameras" in output
    assert "<!-- misses (% of pairs of one person) -->" in (tmp_path / "rates.svg").read_text()
    saved = json.loads((known / "threshold.json").read_text())
    assert f"distance {saved['threshold']['value']:.4f} [" in output
    shown = json.loads(vreid(*asked, "--json")[1])
    assert shown["threshold"] == saved["threshold"]
    assert [point["fpr"] for point in shown["points"]] == [0.01, 0.001]
    assert shown["cameras"][1]["cameras"] == [0, 1]
    assert shown["cameras"][0]["fnmr"] == [None, None]  # pairs of one person and one camera are junk

    code, output, errors = vreid("search", known, known, "--top", 3, "--json")
    assert (code, errors) == (0, "")
    band = saved["threshold"]
    for item in (item for entry in json.loads(output) for item in entry["nearest"]):
        said = "same" if item["distance"] <= band["low"] else "not"
        said = "too close to say" if band["low"] < item["distance"] <= band["high"] else said
        assert item["answer"] == said
    assert "  same  " in vreid("search", known, known, "--top", 3)[1]
    code, output, errors = vreid("search", shifted, shifted, "--threshold", known, "--json")
    assert code == 0
    assert errors.startswith("vreid: warning: distances to the nearest tracklet are not those of the calibr")
    assert errors.count("\n") == 2
    json.loads(output)

    saved["model"]["weights"] = "b"
    (shifted / "threshold.json").write_text(json.dumps(saved))
    code, output, errors = vreid("search", shifted, shifted, "--out", tmp_path / "none.json")
    assert (code, output, errors.count("\n")) == (1, "", 1)
    assert 'threshold: expected one for features of weights "a", got one for "b" in ' in errors
    assert not (tmp_path / "none.json").exists()


@pytest.fixture
def clip(tmp_path):
    """A video of twelve grey frames, and a file of two boxes' tracklets: one named person, one unknown."""
    cv2 = pytest.importorskip("cv2", reason="needs the extra [video]")
    video, boxes = tmp_path / "a clip.avi", tmp_path / "boxes.json"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for frame in range(12):
        writer.write(np.full((64, 96, 3), 20 * frame, dtype=np.uint8))
    writer.release()
    tracks = [
        {"id": 0, "person": "A", "frames": [0, 1, 2, 3, 4], "boxes": [[2, 3, 20, 40]] * 5},
        {"id": 1, "person": None, "frames": [3, 4, 5, 8, 9], "boxes": [[40, 3, 20, 40]] * 5},
        {"id": 2, "person": None, "frames": [6, 7], "boxes": [[2, 3, 20, 40]] * 2},
    ]
    boxes.write_text(json.dumps({"tracklets": tracks}))
    return video, boxes


def test_tracklets_of_a_video_and_what_was_found(vreid, clip, tmp_path):
    video, boxes = clip
    out = tmp_path / "found [here]"
    options = ("--split", 5, "--start", 1, "--stop", 9, "--min-frames", 3, "--camera", "west")
    code, output, errors = vreid("tracklets", video, out, "--boxes", boxes, *options)
    assert code == 0, errors
    summary = output.splitlines()[-1]
    assert summary.startswith("2 tracklets: 1 train, 1 test (1 persons, 1 of unknown identity")
    assert summary.endswith(f"crops in {out}; 1 shorter tracks dropped")
    crops = {path.relative_to(out).as_posix() for path in out.rglob("*.jpg")}
    assert crops == {f"train/A/west/0000/{frame:06d}.jpg" for frame in (1, 2, 3, 4)} | {
        f"{part}/west-unknown0001/west/0001/{frame:06d}.jpg"
        for part in ("query", "gallery")
        for frame in (3, 4, 5, 8)
    }


def test_tracklets_looks_for_people_on_every_so_many_frames(vreid, clip, tmp_path):
    code, _, errors = vreid("tracklets", clip[0], tmp_path / "out", "--stride", 3, "--stop", 6)
    assert code == 1  # grey frames: the detector runs and there is nobody
    assert "expected a track of at least 4 boxes in frames 0 to 6, got none" in errors
    code, _, errors = vreid("tracklets", clip[0].parent, tmp_path / "out", "--split", 3)
    assert (code, errors) == (1, "vreid: error: --split: expected no value for a folder of videos, got 3\n")
    code, _, errors = vreid("tracklets", clip[0], tmp_path / "out", "--stride", 0)
    assert code == 1
    assert errors == "vreid: error: stride: expected at least 1, got 0\n"


def test_the_demo_takes_a_folder_of_any_name(vreid, tmp_path, monkeypatch):
    from vreid_ext import demo

    def train(recipe, *_, **__):
        raise ValueError(f"trains on {recipe.dataset.root}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "train", train)
    monkeypatch.setattr(demo, "SET", {"ids": 4, "cameras": 2, "tracklets": 1, "frames": 1, "size": [32, 16]})
    _, _, errors = vreid("demo", "[my] demo #1")
    assert errors == f"vreid: error: trains on {tmp_path}/[my] demo #1/set\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "sta_marz"), "nearest: sta_mars"),
        (("train", "sta_mars", "train.epoch=1"), "nearest known key: 'train.epochs'"),
        (("train", "sta_mars"), "dataset.root=DIR"),
        (("eval", "nowhere"), "expected a checkpoint, a run that contains one, or a network file"),
        (("search", "nowhere", "nowhere"), "has no manifest.json"),
        (
            ("synth", "out", "--size", "big"),
            "--size: expected HEIGHTxWIDTH in pixels, such as 128x64, got 'big'",
        ),
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


@pytest.mark.parametrize(
    "command",
    [
        None,
        "train",
        "eval",
        "compare",
        "calibrate",
        "export",
        "extract",
        "joints",
        "search",
        "synth",
        "tracklets",
        "report",
        "plot",
        "demo",
        "recipes",
        "tune",
        "info",
    ],
)
def test_help_shows_an_example(vreid, command):
    code, output, _ = vreid(*([command] if command else []), "--help")
    assert code == 0
    assert f"Example: vreid {command or 'demo'}" in output


@pytest.mark.parametrize("picture", ["cmc", "heatmap", "ranking"])
def test_help_of_a_picture_shows_an_example(vreid, picture):
    code, output, _ = vreid("plot", picture, "--help")
    assert code == 0
    assert f"Example: vreid plot {picture}" in " ".join(output.split())


def test_an_interrupted_training_says_how_to_go_on(vreid, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vreid_ext.engine.train", interrupt)
    code, output, errors = vreid("train", "synth_sta", "--out", tmp_path)
    assert (code, output) == (130, "")
    assert errors == "vreid: interrupted; run the same command again to resume\n"


def test_an_interrupted_command_that_starts_again_says_so(vreid, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vreid_ext.data.synth.synthesize", interrupt)
    code, _, errors = vreid("synth", tmp_path / "set")
    assert code == 130
    assert (
        errors
        == "vreid: interrupted; no incomplete output is left; run the same command again to start over\n"
    )


@pytest.mark.parametrize(
    ("words", "offered"), [("vreid tr", {"train", "tracklets"}), ("vreid eval --sp", {"--splits"})]
)
def test_a_shell_completes_commands_and_options(vreid, monkeypatch, words, offered):
    monkeypatch.setenv("_VREID_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert set(vreid()[1].split()) == offered


def test_json_is_all_that_a_machine_reads(vreid):
    code, output, errors = vreid("info", "--json")
    told = json.loads(output)
    assert (code, errors) == (0, "")
    assert "torch" in told["environment"]
    assert {"op": "sta_pool", "backend": "reference", "unusable": None} in told["ops"]
    assert "sta_mars" in json.loads(vreid("recipes", "--json")[1])


def test_wrong_usage_has_its_own_exit_code(vreid):
    assert vreid("train")[0] == 2
    assert vreid("fly")[0] == 2


def test_without_typer_the_command_says_what_to_install(vreid, monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    assert vreid("info") == (1, "", "vreid: error: typer is not installed: pip install 'vreid-ext[train]'\n")


@pytest.mark.parametrize(("module", "extra"), [("omegaconf.errors", "train"), ("cv2", "video")])
def test_a_missing_extra_is_named(vreid, monkeypatch, module, extra):
    def app():
        raise ModuleNotFoundError(name=module)

    monkeypatch.setattr(cli, "application", app)
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


def test_data_prints_what_is_in_a_set(vreid, tmp_path):
    from PIL import Image

    for place in ("anna/cam1/1", "anna/cam2/1", "bob/cam1/1", "zoe"):
        (tmp_path / place).mkdir(parents=True)
        for frame in (1, 2):
            Image.new("RGB", (8, 16)).save(tmp_path / place / f"{frame}.jpg")
    (tmp_path / "bob/notes.txt").touch()
    code, output, errors = vreid("data", "tracklet_folder", tmp_path, "split=0.5", "seed=3")
    assert code == 0, errors
    assert "zoe: expected folders of tracklets, got 2 images (1.jpg, 2.jpg)" in output
    assert f"1 of suffix .txt, such as {tmp_path}/bob/notes.txt" in output
    assert "fraction 0.5 of the people for training (seed 3)" in output
    code, output, errors = vreid("data", "tracklet_folder", tmp_path, "--json")
    told = json.loads(output)
    assert told["train"] == {"persons": 2, "tracklets": 3, "frames": 6, "cameras": 2}
    assert len(told["skipped"]) == 1
    code, output, errors = vreid("data", "tracklet_folder", tmp_path, "on_error=raise")
    assert code == 1
    assert "1 tracklets cannot be used" in errors
    code, _, errors = vreid("data", "tracklet_folder", tmp_path, "fraction=1")
    assert code == 1
    assert "fraction: expected an option of data set 'tracklet_folder' (" in errors


def test_home_is_expanded_in_every_path(vreid, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = vreid("synth", "~/people", "--ids", 4, "--frames", 1, "--size", "32x16")
    assert made[0] == 0, made[2]
    code, output, _ = vreid("data", "mars", "~/people", "--json")
    assert (code, json.loads(output)["root"]) == (0, str(tmp_path / "people"))
    missing = tmp_path / "run"
    for arguments in (("~/run",), (tmp_path, "--features=~/run", "--splits=0"), (tmp_path, "--out=~/run")):
        assert "~" not in vreid("eval", *arguments)[2]
    assert str(missing) in vreid("eval", "~/run")[2]
    assert str(missing) in vreid("plot", "cmc", "--out=a.png", "~/run")[2]
