"""Joints of tracklets from a pose estimator, written beside the data set (`joints.py`)."""

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
    """Anything that finds the joints of the person in a crop."""

    def __call__(self, image: Tensor) -> np.ndarray:
        """Joints (14,3) in the order of `data.JOINTS`, x and y in pixels and confidence in [0, 1].

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
    """Write the joints of every frame of every tracklet, and go on where an earlier call was stopped.

    Args:
        dataset: all its tracklets are taken, each once.
        estimator: finds joints.
        out: a `.jsonl` file; by default `joints.jsonl` in the data set's folder.
        progress: called with (tracklets done, tracklets in all).

    Returns:
        The file.

    Raises:
        ValueError: another suffix, or joints of another shape.
        DatasetError: an image that cannot be read, two tracklets of one name, or a file that is there and is
            something else.
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
    rest = [tracklet for name, tracklet in tracklets.items() if name not in done]

    def joints() -> Iterator[tuple[str, np.ndarray]]:
        for tracklet in rest:
            yield tracklet.name, _tracklet_joints(estimator, tracklet)

    finished = len(tracklets) - len(rest)
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


# Landmarks of MediaPipe's pose model for each joint but head and neck.
_LANDMARKS = {
    "right_shoulder": 12, "right_elbow": 14, "right_wrist": 16,
    "left_shoulder": 11, "left_elbow": 13, "left_wrist": 15,
    "left_hip": 23, "left_knee": 25, "left_ankle": 27,
    "right_hip": 24, "right_knee": 26, "right_ankle": 28,
}  # fmt: skip
_SHOULDERS, _EARS = [11, 12], [7, 8]
_SIDE = 256  # pixels of the network's square input
_MODEL = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"


class MediaPipePose:
    """MediaPipe's pose landmark network (Apache-2.0), run by LiteRT; needs the extra `pose`.

    The neck is the middle of the shoulders. The top of the head, which the network does not give, lies as far
    above the ears' middle as half of that is above the neck. Confidence is the network's visibility.

    Args:
        model: `pose_landmark_full.tflite`, or the wheel of mediapipe 0.10.21 that holds it (newer ones do
            not); None: the one of an installed mediapipe. The wheel alone is enough and does not hold numpy
            back: pip download --no-deps mediapipe==0.10.21
        room: side of the square that is put around the crop, over the longer side of the crop; 1.25 is
            what the network was made for.
        threads: of LiteRT.

    Raises:
        ModuleNotFoundError: ai-edge-litert is missing.
        FileNotFoundError: no model; says where to get it.
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
    how = "pip download --no-deps mediapipe==0.10.21, and give that wheel as the model"
    if model is None:
        package = importlib.util.find_spec("mediapipe")
        folder = Path(package.origin).parent.parent if package is not None and package.origin else None
        if folder is None or not (folder / _MODEL).is_file():
            raise FileNotFoundError(f"model: no mediapipe with {Path(_MODEL).name} is installed; {how}")
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
            raise FileNotFoundError(f"model: {model} holds no {_MODEL}; {how}")
        return wheel.read(_MODEL)
