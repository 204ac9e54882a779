"""Estimation of the joints of all tracklets of a data set, written to a joints file (`joints.py`)."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from vreid_ext._lock import one_writer
from vreid_ext.data.clips.images import read_image
from vreid_ext.data.pose.joints import JOINTS, write_joints, written_tracklets
from vreid_ext.data.records import Tracklet, TrackletDataset


class PoseEstimator(Protocol):
    """Callable that estimates the joints of the person in a crop."""

    def __call__(self, image: Tensor) -> np.ndarray:
        """Return joints (14,3) in the order of `data.JOINTS`: x and y in pixels, confidence in [0, 1].

        Args:
            image: (3,h,w) uint8 RGB.
        """
        ...


def estimate_joints(
    dataset: TrackletDataset,
    estimator: PoseEstimator,
    out: str | Path | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Estimate the joints of all frames of all tracklets and write them to a file.

    An interrupted call is resumed: tracklets that are already in the file are skipped.

    Args:
        dataset: data set; tracklets that are in several splits are processed once.
        estimator: the pose estimator.
        out: a `.jsonl` file; default: `joints.jsonl` in the data set's folder.
        progress: called as `progress(tracklets_done, total_tracklets)`.

    Returns:
        Path of the file.

    Raises:
        ValueError: `out` does not end in .jsonl, or `estimator` returns an array of the wrong shape.
        DatasetError: an image cannot be read, two tracklets have the same name, or `out` exists and is not a
            valid joints file.
    """
    out = Path(dataset.root, "joints.jsonl") if out is None else Path(out)
    if out.suffix != ".jsonl":
        raise ValueError(f"out: expected a name that ends in .jsonl, got {str(out)!r}")
    with one_writer("out", out):
        _estimate(dataset, estimator, out, progress)
    return out


def _estimate(
    dataset: TrackletDataset,
    estimator: PoseEstimator,
    out: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    done = written_tracklets(out)
    tracklets = dataset.by_name()
    remaining = [tracklet for name, tracklet in tracklets.items() if name not in done]

    def joints() -> Iterator[tuple[str, np.ndarray]]:
        for tracklet in remaining:
            yield tracklet.name, _tracklet_joints(estimator, tracklet)

    finished = len(tracklets) - len(remaining)
    if progress is not None:
        progress(finished, len(tracklets))
    for _ in write_joints(out, joints()):
        finished += 1
        if progress is not None:
            progress(finished, len(tracklets))


def _tracklet_joints(estimator: PoseEstimator, tracklet: Tracklet) -> np.ndarray:
    frames = []
    for path in tracklet.paths:
        found = np.asarray(estimator(read_image(path)), np.float32)
        if found.shape != (len(JOINTS), 3):
            raise ValueError(
                f"estimator: expected a result of shape {(len(JOINTS), 3)} for {path}, got {found.shape}"
            )
        frames.append(found)
    return np.stack(frames)


# MediaPipe's landmark index of each joint except head and neck, which are computed from several landmarks.
_LANDMARKS = {
    "right_shoulder": 12, "right_elbow": 14, "right_wrist": 16,
    "left_shoulder": 11, "left_elbow": 13, "left_wrist": 15,
    "left_hip": 23, "left_knee": 25, "left_ankle": 27,
    "right_hip": 24, "right_knee": 26, "right_ankle": 28,
}  # fmt: skip
_SHOULDERS, _EARS = [11, 12], [7, 8]
_SIDE = 256  # side of the network's square input in pixels
_MODEL = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"


class MediaPipePose:
    """MediaPipe's pose landmark network (Apache-2.0), run with LiteRT. Requires the extra `pose`.

    The network has no landmarks for the neck and the top of the head:

        neck = mean of the two shoulders
        head = ears + (ears - neck) / 2,  ears = mean of the two ears

    The confidence is the network's visibility, multiplied by its probability that a person is present.

    Args:
        model: `pose_landmark_full.tflite`, or the wheel of mediapipe 0.10.21, which contains it (newer wheels
            do not); None: use the installed mediapipe package. Downloading the wheel without installing it
            avoids its upper bound on the numpy version: pip download --no-deps mediapipe==0.10.21
        room: side of the square network input divided by the longer side of the crop that it contains; the
            network was trained with 1.25.
        threads: number of threads of LiteRT.

    Raises:
        ModuleNotFoundError: ai-edge-litert is not installed.
        FileNotFoundError: no model was found. The message says where to get it.
    """

    def __init__(self, model: str | Path | None = None, *, room: float = 1.25, threads: int = 1) -> None:
        content = _model_content(model)
        from ai_edge_litert.interpreter import Interpreter

        self._network = Interpreter(model_content=content, num_threads=threads)
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        outputs = {tuple(each["shape"]): each["index"] for each in self._network.get_output_details()}
        self._landmarks, self._presence = outputs[1, 195], outputs[1, 1]
        self.room = room

    def __call__(self, image: Tensor) -> np.ndarray:
        height, width = image.shape[-2:]
        scale = _SIDE / (self.room * max(height, width))
        h, w = round(height * scale), round(width * scale)
        top, left = (_SIDE - h) // 2, (_SIDE - w) // 2
        square = torch.zeros(_SIDE, _SIDE, 3, dtype=torch.float32, device="cpu")
        square[top : top + h, left : left + w] = resize(image, [h, w]).permute(1, 2, 0).float() / 255
        self._network.set_tensor(self._input, square[None].numpy())
        self._network.invoke()
        points = self._network.get_tensor(self._landmarks).reshape(-1, 5).astype(np.float64)
        presence = float(self._network.get_tensor(self._presence)[0, 0])
        xy = (points[:, :2] - (left, top)) / (w / width, h / height)
        seen = presence / (1 + np.exp(-points[:, 3]))
        neck, ears = xy[_SHOULDERS].mean(0), xy[_EARS].mean(0)
        found = {
            "head": (*(ears + (ears - neck) / 2), seen[_EARS].min()),
            "neck": (*neck, seen[_SHOULDERS].min()),
        }
        found |= {name: (*xy[index], seen[index]) for name, index in _LANDMARKS.items()}
        return np.array([found[name] for name in JOINTS], np.float32)


def _model_content(model: str | Path | None) -> bytes:
    how = "run `pip download --no-deps mediapipe==0.10.21` and pass that wheel as the model"
    if model is None:
        package = importlib.util.find_spec("mediapipe")
        folder = Path(package.origin).parent.parent if package is not None and package.origin else None
        if folder is None or not (folder / _MODEL).is_file():
            raise FileNotFoundError(
                f"model: expected an installed mediapipe with {Path(_MODEL).name}, got none; {how}"
            )
        return (folder / _MODEL).read_bytes()
    model = Path(model)
    if not model.is_file():
        raise FileNotFoundError(
            f"model: expected an existing .tflite file or wheel, got {str(model)!r}; {how}"
        )
    if model.suffix != ".whl":
        return model.read_bytes()
    with zipfile.ZipFile(model) as wheel:
        if _MODEL not in wheel.namelist():
            raise FileNotFoundError(f"model: expected a wheel that contains {_MODEL}, got {model}; {how}")
        return wheel.read(_MODEL)
