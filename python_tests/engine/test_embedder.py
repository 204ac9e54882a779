"""Features in one call: those of `vreid extract`, for tracklets, crops, live tracks and exported models."""

import json
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext import Embedder, engine
from vreid_ext.data.clips.images import read_image
from vreid_ext.engine.build import dataset_of, model_of, transforms_of
from vreid_ext.engine.calibrate import calibrate
from vreid_ext.engine.checkpoint import save_checkpoint
from vreid_ext.engine.comparison import Comparison
from vreid_ext.engine.embedder import Match, Verdict
from vreid_ext.engine.features import export_features
from vreid_ext.engine.threshold import read_threshold

SMALL = ["model.backbone=resnet18", "input.height=64", "input.width=32", "eval.frames=[2]", "train.workers=0"]
SYSTEMS = ["sta", "drsta", "stal", "asta"]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="session")
def untrained(mars_root, ilids_root, tmp_path_factory):
    """The folder of a run of one of the systems with random weights, as training would leave it."""
    made = {}

    def make(system="sta"):
        if system not in made:
            root = ilids_root if system == "drsta" else mars_root
            recipe = engine.load_recipe(f"synth_{system}", [f"dataset.root={root}", *SMALL])
            data = dataset_of(recipe.dataset)
            torch.manual_seed(0)
            run = tmp_path_factory.mktemp(system)
            model = model_of(recipe, data.num_train_pids)
            save_checkpoint(run / "checkpoints/step-00000001", model, recipe.to_dict(), data.num_train_pids)
            made[system] = run, Comparison(data).tracklets
        return made[system]

    return make


def arrays(tracklet):
    return [read_image(path).permute(1, 2, 0).numpy() for path in tracklet.paths]


def pictures(sizes, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("sampling", ["evenly", "dense"])
@pytest.mark.parametrize("system", ["sta", "drsta", "asta"])
def test_features_are_those_of_extract(untrained, tmp_path, system, sampling):
    run, tracklets = untrained(system)
    how = [f"eval.sampling={sampling}"]
    (stored,) = export_features(run, tmp_path / "features", how)
    rows = {
        number: torch.from_numpy(np.array(row))
        for split in ("query", "gallery")
        for number, row in zip(stored.numbers(split), stored.rows(split)[:], strict=True)
    }
    embedder = Embedder(run, "cpu", overrides=how)
    some = [*range(0, len(tracklets), 3)]
    found = embedder.embed_many([tracklets[n].paths for n in some])
    expected = torch.stack([rows[number] for number in some])
    torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(embedder.embed(arrays(tracklets[some[0]])), expected[0], **CLOSE)
    assert embedder.dimensions == expected.shape[1]
    assert (embedder.frames, embedder.sampling, embedder.size) == (2, sampling, (64, 32))
    assert "2 frames" in repr(embedder)


@pytest.mark.parametrize("system", ["sta", "stal"])
def test_the_same_batch_gives_the_same_bits(untrained, system):
    run, tracklets = untrained(system)
    embedder = Embedder(run, "cpu")
    paths = [each.paths for each in tracklets[:5]]
    found = embedder.embed_many(paths)
    assert torch.equal(found, embedder.embed_many([arrays(each) for each in tracklets[:5]]))
    model, recipe, _ = engine.open_checkpoint(run)
    without_joints = [replace(each, joints=None) for each in tracklets[:5]]
    offline = engine.extract_features(
        model, without_joints, frames=2, sampling="evenly", transform=transforms_of(recipe.input)[1]
    )
    assert torch.equal(found, offline)


@settings(max_examples=8)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 50)), min_size=1, max_size=7),
    sampling=st.sampled_from(["evenly", "first_of_chunk", "dense"]),
    equal=st.booleans(),
)
def test_a_track_has_the_feature_of_its_frames_so_far(untrained, sizes, sampling, equal):
    run, _ = untrained()
    embedder = Embedder(run, "cpu", overrides=[f"eval.sampling={sampling}", "eval.frames=[3]"])
    frames = pictures([sizes[0]] * len(sizes) if equal else sizes)
    for number, frame in enumerate(frames, start=1):
        reused = frame.copy()
        embedder.update("a", reused)
        reused[:] = 0  # a video reader overwrites its buffer
        expected = embedder.embed(frames[:number])
        # Clips of frames of one size are resized together, which may round a pixel differently.
        torch.testing.assert_close(embedder.feature("a"), expected, **CLOSE)
    assert torch.equal(embedder.finish("a"), embedder.embed(frames)) or sampling == "dense"


def test_the_life_of_a_track(untrained):
    run, tracklets = untrained()
    embedder = Embedder(run, "cpu", max_gap=10)
    first, second = arrays(tracklets[0]), arrays(tracklets[1])
    for time, frame in enumerate(first):
        embedder.update(np.int64(7), frame, time=time)
    before = embedder.feature(7)
    assert embedder.tracks == [7]
    with pytest.raises(ValueError, match=r"^track_id: .* at most max_gap=10 .* call finish\(7\) first"):
        embedder.update(7, second[0], time=99)
    with pytest.raises(ValueError, match=r"^time: expected a time after .* 4, got 4"):
        embedder.update(7, second[0], time=4)
    with pytest.raises(ValueError, match=r"^time: expected the time .* max_gap is set"):
        embedder.update(7, second[0])
    assert torch.equal(embedder.feature(7), before)
    assert torch.equal(embedder.finish(7), before)
    assert embedder.tracks == []
    embedder.update(7, str(tracklets[1].paths[0]), time=99)  # another person
    torch.testing.assert_close(embedder.feature(7), embedder.embed(second[:1]), **CLOSE)
    embedder.clear()
    for call in (embedder.feature, embedder.finish):
        with pytest.raises(ValueError, match=r"^track_id: expected one of 0 tracks .*, got 7"):
            call(7)


def test_a_dense_track_keeps_less_than_a_clip(untrained):
    embedder = Embedder(untrained()[0], "cpu", overrides=["eval.sampling=dense", "eval.frames=[4]"])
    for frame in pictures([(20, 10)] * 11):
        embedder.update(1, frame)
        assert len(embedder._tracks._tracks[1].images) < 4


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_box_has_the_feature_of_a_tracklet_of_its_crop(untrained, system):
    run, _ = untrained(system)
    embedder = Embedder(run, "cpu")
    (picture,) = pictures([(120, 90)])
    boxes = np.array([[10, 20, 40.5, 90.2], [-5, -5, 30, 60], [60, 50, 500, 500]], dtype=np.float32)
    found = embedder.boxes(picture, boxes)
    crops = [picture[20:91, 10:41], picture[:60, :30], picture[50:, 60:]]
    assert all(map(np.array_equal, embedder.crops(picture, boxes), crops))
    # ASTA's convolution over time sees a border, which depends on the number of frames.
    tolerance = 0.02 if system == "asta" else 1e-4
    for row, crop in zip(found, crops, strict=True):
        assert embedder.distance(row, embedder.embed([crop])) < tolerance
    detections = SimpleNamespace(xyxy=boxes)
    assert torch.equal(embedder.boxes(picture, detections), found)
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    assert torch.equal(embedder.boxes(picture, sides, format="xywh"), found)
    assert embedder.boxes(picture, np.empty((0, 4))).shape == (0, embedder.dimensions)
    assert embedder.boxes(picture, []).shape == embedder.embed_many([]).shape == (0, embedder.dimensions)


def test_supervisions_detections(untrained):
    sv = pytest.importorskip("supervision")
    embedder = Embedder(untrained()[0], "cpu")
    (picture,) = pictures([(60, 60)])
    boxes = np.array([[1.0, 2, 30, 50], [20, 10, 50, 60]])
    assert torch.equal(embedder.boxes(picture, sv.Detections(xyxy=boxes)), embedder.boxes(picture, boxes))
    assert len(embedder.boxes(picture, sv.Detections.empty())) == 0


def test_colors_and_memory_layouts(untrained):
    run, _ = untrained()
    rgb, bgr = Embedder(run, "cpu"), Embedder(run, "cpu", color="bgr")
    frames = pictures([(40, 20), (50, 20)])
    frames[0].flags.writeable = False
    feature = rgb.embed(frames)
    assert torch.equal(bgr.embed([frame[..., ::-1] for frame in frames]), feature)
    assert torch.equal(rgb.embed([torch.from_numpy(frame.copy()) for frame in frames]), feature)
    wide = np.zeros((40, 60, 3), np.uint8)
    wide[:, ::3] = frames[0]
    assert torch.equal(rgb.embed([wide[:, ::3], frames[1]]), feature)
    assert not torch.allclose(bgr.embed(frames), feature, rtol=1e-3)


@pytest.mark.parametrize("sampling", ["evenly", "dense"])
def test_threads_get_the_features_of_one_thread(untrained, sampling):
    run, tracklets = untrained()
    embedder = Embedder(run, "cpu", overrides=[f"eval.sampling={sampling}"])
    frames = [arrays(each) for each in tracklets[:8]]
    alone = [embedder.embed(each) for each in frames]

    def track(number):
        for frame in frames[number % 8]:
            embedder.update(number, frame)
        return embedder.feature(number)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(embedder.embed, frames * 3))
        tracks = list(pool.map(track, range(24)))
    for number in range(24):
        assert torch.equal(together[number], alone[number % 8])
        torch.testing.assert_close(tracks[number], alone[number % 8], **CLOSE)
    assert len(embedder.tracks) == 24


def test_an_update_during_finish_is_not_lost(untrained):
    """Every frame belongs to exactly one of the tracks that had the id."""
    embedder = Embedder(untrained()[0], "cpu", overrides=["eval.sampling=dense", "eval.frames=[1]"])
    counts, stop = [], threading.Event()
    finish = embedder._tracks._feature

    def counting(track_id, track):
        feature = finish(track_id, track)
        counts.append(track.count)
        return feature

    embedder._tracks._feature = counting

    def finisher():
        while not stop.is_set():
            if embedder.tracks:
                embedder.finish(1)

    other = threading.Thread(target=finisher)
    other.start()
    for frame in pictures([(8, 4)] * 20):
        embedder.update(1, frame)
    stop.set()
    other.join()
    if embedder.tracks:
        embedder.finish(1)
    assert sum(counts) == 20


def test_the_random_state_of_the_process_is_left_alone(untrained):
    run, tracklets = untrained()
    embedder = Embedder(run, "cpu", overrides=["eval.sampling=dense"])
    before = torch.get_rng_state()
    embedder.embed(tracklets[0].paths)
    embedder.search(torch.ones(2, embedder.dimensions), torch.ones(3, embedder.dimensions))
    assert torch.equal(torch.get_rng_state(), before)


def exported(run, folder, name):
    pytest.importorskip("onnxruntime", reason="needs the extra [export]")
    from vreid_ext.engine.export import export_model

    format = "torch" if name == "model.pt2" else "onnx"
    export_model(run, folder / name, format=format, overrides=["eval.sampling=dense"])
    return folder / name


@pytest.mark.filterwarnings("ignore:# The axis name")  # of torch's exporter
@pytest.mark.parametrize("name", [pytest.param("model.onnx", marks=pytest.mark.slow), "model.pt2"])
def test_an_exported_model_gives_the_features_of_its_run(untrained, tmp_path, name):
    run, tracklets = untrained()
    file = exported(run, tmp_path, name)
    of_run = Embedder(run, "cpu", overrides=["eval.sampling=dense"])
    embedder = Embedder(file, "cpu")
    assert (embedder.frames, embedder.sampling, embedder.metric) == (2, "dense", of_run.metric)
    paths = [each.paths for each in tracklets[:3]]  # five frames: the last clip has one
    expected = of_run.embed_many(paths)
    torch.testing.assert_close(embedder.embed_many(paths), expected, rtol=1e-3, atol=1e-4)
    (picture,) = pictures([(50, 40)])
    boxes = [[0, 0, 20, 40], [5, 5, 30, 50]]
    torch.testing.assert_close(
        embedder.boxes(picture, boxes), of_run.boxes(picture, boxes), rtol=1e-3, atol=1e-4
    )
    assert embedder._encoder.identity() == of_run._encoder.identity()
    with pytest.raises(ValueError, match=r"^overrides: expected none for an exported file"):
        Embedder(file, overrides=["eval.frames=[4]"])
    if name.endswith("onnx"):
        with pytest.raises(ValueError, match=r"^device: "):
            Embedder(file, "cuda")


def test_other_files_are_no_exported_model(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the extra [export]")
    for name in ("damaged.onnx", "damaged.pt2"):
        (tmp_path / name).write_bytes(b"no model")
        with pytest.raises(ValueError, match=r"^(source|network): .*damaged.* cannot be opened.*: [^\n]*$"):
            Embedder(tmp_path / name, "cpu")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "plain.onnx")
    with pytest.raises(ValueError, match=r"^network: expected one input, images .* in .*plain.onnx"):
        Embedder(tmp_path / "plain.onnx", "cpu")


@pytest.fixture
def calibrated(untrained, tmp_path):
    """A run, its tracklets, and the folder of a threshold for it."""
    run, tracklets = untrained()
    (stored,) = export_features(run, tmp_path / "features")
    calibrate(stored.folder, 0.2, resamples=50)
    return run, tracklets, stored.folder


def test_answers_are_those_of_the_threshold(calibrated):
    run, tracklets, folder = calibrated
    embedder = Embedder(run, "cpu", threshold=folder)
    threshold = read_threshold(folder)
    rows = embedder.embed_many([each.paths for each in tracklets])
    verdict = embedder.compare(rows[0], rows[1])
    assert verdict == Verdict(embedder.distance(rows[0], rows[1]), threshold.answer(verdict.distance))
    expected = 1 - float(torch.cosine_similarity(rows[0].double(), rows[1].double(), 0))
    assert verdict.distance == pytest.approx(expected, abs=1e-9)
    assert embedder.compare(rows[0], rows[0]).answer == "same"
    (found,) = embedder.search(rows[:1], rows[1:], top=3)
    assert found == sorted(found, key=lambda match: match.distance)
    assert len(found) == 3
    for match in found:
        assert isinstance(match, Match)
        assert match.distance == pytest.approx(embedder.distance(rows[0], rows[1 + match.row]))
        assert match.answer == threshold.answer(match.distance)


def test_without_a_threshold_there_is_no_answer(untrained):
    run, _ = untrained()
    embedder = Embedder(run, "cpu")
    a, b = torch.randn(2, embedder.dimensions)
    assert embedder.threshold is None
    assert embedder.search(a[None], b[None])[0][0].answer is None
    with pytest.raises(ValueError, match=r"^threshold: expected one, got none; run `vreid calibrate"):
        embedder.compare(a, b)


def test_the_threshold_of_another_model_is_an_error(calibrated, untrained, tmp_path):
    run, _, folder = calibrated
    other, _ = untrained("asta")
    with pytest.raises(ValueError, match=r"^threshold: expected one for features of"):
        Embedder(other, "cpu", threshold=folder)
    with pytest.raises(ValueError, match=r"^threshold: .*eval.sampling"):
        Embedder(run, "cpu", threshold=folder, overrides=["eval.sampling=dense"])
    with pytest.raises(ValueError, match=r"^threshold: expected a file of `vreid calibrate`"):
        Embedder(run, "cpu", threshold=tmp_path / "none.json")
    # Beside the run it is found; features can still be computed with other settings.
    (run / "threshold.json").write_bytes((folder / "threshold.json").read_bytes())
    try:
        assert Embedder(run, "cpu").threshold.content == read_threshold(folder).content
        dense = Embedder(run, "cpu", overrides=["eval.sampling=dense"])
        dense.embed(pictures([(9, 9)]))
        with pytest.raises(ValueError, match=r"^threshold: .*eval.sampling"):
            dense.compare(torch.zeros(dense.dimensions), torch.zeros(dense.dimensions))
    finally:
        (run / "threshold.json").unlink()


def test_drift_of_many_small_searches_is_warned_of_once(calibrated):
    run, tracklets, folder = calibrated
    file = folder / "threshold.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"persons": 1000}))  # with four persons no drift can be seen
    embedder = Embedder(run, "cpu", threshold=folder)
    rows = embedder.embed_many([each.paths for each in tracklets])
    for number in range(len(rows)):  # as in the calibration
        embedder.search(rows[number : number + 1], torch.cat([rows[:number], rows[number + 1 :]]))
    other = Embedder(run, "cpu", threshold=folder)
    noise = torch.randn(60, other.dimensions)
    with warnings.catch_warnings(record=True, action="always") as caught:
        for number in range(60):
            other.search(noise[number : number + 1], rows)
    said = sorted(str(each.message).split(" are ")[0] for each in caught)
    assert said in (["distances to the nearest tracklet"],
                    ["distances to a random tracklet", "distances to the nearest tracklet"])  # fmt: skip


PICTURE = pictures([(30, 20)])[0]
BAD = {
    "no frames": (lambda e: e.embed([]), r"^frames: expected at least one frame, got none"),
    "one path": (lambda e: e.embed("a.jpg"), r"^frames: expected a list of frames, got the path 'a.jpg'"),
    "float": (lambda e: e.embed([PICTURE / 255]), r"^frames\[0\]: expected dtype uint8, got float64"),
    "gray": (lambda e: e.embed([PICTURE, PICTURE[..., 0]]), r"^frames\[1\]: expected shape \(h,w,3\), got"),
    "one image": (lambda e: e.embed(PICTURE), r"^frames\[0\]: expected shape"),
    "empty image": (lambda e: e.embed([PICTURE[:0]]), r"^frames\[0\]: expected shape"),
    "list": (lambda e: e.embed([[1, 2]]), r"^frames\[0\]: expected a uint8 array \(h,w,3\), got list"),
    "no file": (lambda e: e.embed(["no.jpg"]), r"^frames\[0\]: expected an image file, got no such"),
    "many": (lambda e: e.embed_many([[PICTURE], []]), r"^tracklets\[1\]: expected at least one frame"),
    "no image": (lambda e: e.embed([__file__]), r"cannot be read as an image"),
    "crop": (lambda e: e.update(3, PICTURE * 1.0), r"^crop\[0\]: expected dtype uint8"),
    "box outside": (
        lambda e: e.boxes(PICTURE, [[1, 1, 5, 5], [20, 0, 25, 9]]),
        r"^boxes\[1\]: expected overlap with the frame of 20 x 30 pixels, got",
    ),
    "empty box": (lambda e: e.boxes(PICTURE, [[5, 5, 5, 9]]), r"^boxes\[0\]: expected positive width"),
    "NaN box": (lambda e: e.boxes(PICTURE, [[5, 5, np.nan, 9]]), r"^boxes\[0\]: expected finite numbers"),
    "flat boxes": (lambda e: e.boxes(PICTURE, [1, 1, 5, 5]), r"^boxes: expected shape \(N,4\), got \(4,\)"),
    "five numbers": (lambda e: e.boxes(PICTURE, [[1, 1, 5, 5, 1]]), r"^boxes: expected shape \(N,4\)"),
    "format": (lambda e: e.boxes(PICTURE, [], format="cxcywh"), r"^format: expected one of"),
    "picture": (lambda e: e.boxes(PICTURE[0], []), r"^frame: expected shape \(h,w,3\)"),
    "unknown track": (lambda e: e.feature("b"), r"^track_id: expected one of 1 tracks .*, got 'b'"),
    "time": (lambda e: e.update("a", PICTURE, time=float("nan")), r"^time: expected a finite number"),
    "feature": (lambda e: e.distance(torch.zeros(3), torch.zeros(3)), r"^a: expected features of shape"),
    "features": (lambda e: e.search(*torch.zeros(2, 2, 3)), r"^query: expected features of shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_changes_nothing(untrained, name):
    call, says = BAD[name]
    embedder = Embedder(untrained()[0], "cpu")
    embedder.update("a", PICTURE)
    before = embedder.feature("a")
    with pytest.raises((ValueError, TypeError), match=says) as error:
        call(embedder)
    assert "\n" not in str(error.value)
    assert embedder.tracks == ["a"]
    assert torch.equal(embedder.feature("a"), before)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"source": "none"},
            r"^source: expected a run, a checkpoint or an exported file, got no such 'none'",
        ),
        ({"source": __file__}, r"^source: expected the folder of a run .* '.*test_embedder.py'"),
        ({"device": "cuda:99"}, r"^device: expected a device of this machine, got 'cuda:99'"),
        ({"device": "tpu9"}, r"^device: expected a device of this machine, got 'tpu9'"),
        ({"color": "gray"}, r"^color: expected one of"),
        ({"max_gap": -1}, r"^max_gap: expected a finite number >= 0"),
        ({"overrides": ["eval.frames=[2,4]"]}, r"^eval.frames: expected one clip length, got \[2, 4\]; use"),
        ({"overrides": ["eval.sampling=random"]}, r"^eval.sampling: .*, got 'random'; use the override"),
    ],
)
def test_bad_arguments(untrained, arguments, says):
    given = {"source": untrained()[0], "device": "cpu"} | arguments
    with pytest.raises(ValueError, match=says) as error:
        Embedder(given.pop("source"), **given)
    assert "\n" not in str(error.value)


def test_from_pretrained_reads_local_folders(untrained):
    run, tracklets = untrained()
    expected = Embedder(run, "cpu").embed(tracklets[0].paths)
    for folder in (run, run / "checkpoints/step-00000001"):
        embedder = Embedder.from_pretrained(folder, device="cpu")
        assert torch.equal(embedder.embed(tracklets[0].paths), expected)
    with pytest.raises(ValueError, match=r"^folder: expected a folder with .* .someone/model.$"):
        Embedder.from_pretrained("someone/model")
    with pytest.raises(ValueError, match=r"^checkpoint: expected a checkpoint"):
        Embedder.from_pretrained(run.parent)


def test_the_name_is_imported_on_first_use():
    code = (
        "import sys, vreid_ext; before = 'vreid_ext.engine' in sys.modules; print(before, vreid_ext.Embedder)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False <class 'vreid_ext.engine.embedder.Embedder'>\n"
