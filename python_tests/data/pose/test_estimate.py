import dataclasses
import zipfile

import numpy as np
import pytest
import torch

from vreid_ext.data import attach_joints, build_dataset
from vreid_ext.data.pose.estimate import MediaPipePose, estimate_joints
from vreid_ext.data.synth import synthesize


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = synthesize(
        tmp_path_factory.mktemp("pose") / "mars", ids=4, cameras=2, tracklets=1, frames=2, size=(32, 16)
    )
    (root / "joints.json").unlink()
    return build_dataset("mars", root)


class Brightest:
    """Says that all joints are where the frame is brightest, and counts its calls."""

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = 0, stop_after

    def __call__(self, image):
        self.calls += 1
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        y, x = divmod(int(image.float().sum(0).argmax()), image.shape[2])
        return np.full((14, 3), (x, y, 0.5))


def test_every_tracklet_is_written_once_and_read_back(dataset):
    estimator, seen = Brightest(), []
    path = estimate_joints(dataset, estimator, progress=lambda *counts: seen.append(counts))
    tracklets = {t.name: t for t in (*dataset.train, *dataset.query, *dataset.gallery)}
    assert estimator.calls == sum(map(len, tracklets.values()))
    assert seen == [(n, len(tracklets)) for n in range(len(tracklets) + 1)]
    attached = attach_joints(dataset)
    assert attached.train[0].joints[..., 2].unique().tolist() == [0.5]
    path.unlink()


def test_a_stopped_run_goes_on(dataset, tmp_path):
    out, whole = tmp_path / "joints.jsonl", tmp_path / "whole.jsonl"
    with pytest.raises(KeyboardInterrupt):
        estimate_joints(dataset, Brightest(stop_after=6), out)
    written = len(out.read_text().splitlines()) - 1
    assert written == 2
    estimator = Brightest()
    estimate_joints(dataset, estimator, out)
    everything = Brightest()
    estimate_joints(dataset, everything, whole)
    assert estimator.calls == everything.calls - 2 * written
    assert out.read_text() == whole.read_text()


def test_bad_input_is_named(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"out: expected a name that ends in .jsonl, got .*joints.json'"):
        estimate_joints(dataset, Brightest(), tmp_path / "joints.json")
    with pytest.raises(ValueError, match=r"estimator: expected .*\(14, 3\) for .*jpg, got \(13, 3\)"):
        estimate_joints(dataset, lambda image: np.zeros((13, 3)), tmp_path / "a.jsonl")
    with pytest.raises(
        FileNotFoundError, match=r"model: expected .*, got .*none.tflite.*pip download --no-deps mediapipe"
    ):
        MediaPipePose(tmp_path / "none.tflite")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w"):
        pass
    with pytest.raises(
        FileNotFoundError,
        match=r"expected a wheel that contains mediapipe/modules/pose_landmark.*, got .*empty.whl",
    ):
        MediaPipePose(tmp_path / "empty.whl")


class Network:
    """Stands in for LiteRT: landmark k at (100 + k, 90 + 2 k) of the square, all of them visible."""

    def __init__(self, model_content, num_threads):
        assert model_content == b"weights"

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"index": 0}]

    def get_output_details(self):
        return [{"shape": (1, 195), "index": 1}, {"shape": (1, 1), "index": 2}]

    def set_tensor(self, index, value):
        assert value.shape == (1, 256, 256, 3)
        self.given = value

    def invoke(self):
        pass

    def get_tensor(self, index):
        if index == 2:
            return np.array([[0.8]], np.float32)
        k = np.arange(39)
        return np.stack([100 + k, 90 + 2 * k, 0 * k, 50 + 0 * k, 0 * k], 1).astype(np.float32).reshape(1, -1)


def test_mediapipe_landmarks_become_joints_in_pixels_of_the_crop(tmp_path, monkeypatch):
    import sys
    import types

    interpreter = types.ModuleType("ai_edge_litert.interpreter")
    interpreter.Interpreter = Network
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", interpreter)
    (tmp_path / "pose.tflite").write_bytes(b"weights")
    pose = MediaPipePose(tmp_path / "pose.tflite", room=2.0)
    joints = pose(torch.full((3, 64, 32), 255, dtype=torch.uint8))
    # 64 x 32 pixels are 128 x 64 in the middle of the square: its corner is at (96, 64), the scale 2.
    given = pose._network.given[0]
    assert given[64:192, 96:160].min() == 1
    assert given.sum() == 3 * 128 * 64
    left_ankle = ((100 + 27 - 96) / 2, (90 + 54 - 64) / 2)
    np.testing.assert_allclose(joints[10], (*left_ankle, 0.8), rtol=1e-5)
    neck = np.array([(100 + 11.5 - 96) / 2, (90 + 23 - 64) / 2])
    np.testing.assert_allclose(joints[1, :2], neck, rtol=1e-5)
    ears = np.array([(100 + 7.5 - 96) / 2, (90 + 15 - 64) / 2])
    np.testing.assert_allclose(joints[0, :2], ears + (ears - neck) / 2, rtol=1e-5)


def test_pictures_of_parts(dataset, tmp_path):
    from vreid_ext.report.parts import picture_tracklets

    path = estimate_joints(dataset, Brightest(), tmp_path / "joints.jsonl")
    pictures = picture_tracklets(dataclasses.replace(dataset), path, 2, frames=2)
    assert [picture.name for picture in pictures] == ["parts-1.png", "parts-2.png"]
    assert all(picture.stat().st_size > 5000 for picture in pictures)
