"""`Embedder`: features of tracklets, crops and live tracks in one call, without files."""

import os
import warnings
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from vreid_ext import _checks, ops
from vreid_ext.data.clips.dataset import ClipDataset, read_frame
from vreid_ext.data.clips.sampling import Sampling, count_clips
from vreid_ext.data.clips.transforms import Resize
from vreid_ext.data.records import Tracklet
from vreid_ext.data.video.boxes import check_box, crop_box
from vreid_ext.engine.drift import DriftMonitor, scores
from vreid_ext.engine.encoder import open_encoder
from vreid_ext.engine.extract import features_of
from vreid_ext.engine.pretrained import save_pretrained
from vreid_ext.engine.search import Split, search
from vreid_ext.engine.threshold import Threshold, find_threshold, read_threshold
from vreid_ext.engine.tracks import Tracks
from vreid_ext.weights.locate import is_hub

Frame = np.ndarray | Tensor | str | os.PathLike[str]


class Verdict(NamedTuple):
    """Distance of two features, and "same", "too close to say" or "not" (`Threshold.answer`)."""

    distance: float
    answer: str


class Match(NamedTuple):
    """A row of a gallery: its number, its distance, and the answer (`Threshold.answer`) or None."""

    row: int
    distance: float
    answer: str | None


class Embedder:
    """A model of `vreid train` or `vreid export` that turns images into features.

    Frames go through the code of `vreid extract` with the settings of the run (input size, `eval.sampling`,
    `eval.frames`, mean over clips), except that `dataset.black_box` and `eval.corrupt`, which damage test
    frames, are not applied and joints are not estimated. A feature therefore equals that of `vreid extract`
    for the same pixels, up to the rounding of forward passes with other numbers of clips. No file is written.

    Methods may be called from several threads at the same time.

    Args:
        source: folder of a run (its newest checkpoint is used) or of a checkpoint, or a file of
            `vreid export` (`.onnx`, `.xml` or `.pt2`); or another network (`.onnx` or `.xml`) with one
            feature per image (`engine.network`); or `hf:OWNER/NAME[@REVISION]`.
        device: device of the model; None: the accelerator of this machine, or the CPU. ONNX and OpenVINO
            files run on the CPU.
        overrides: overrides of the run's recipe, such as "eval.sampling=dense".
        threshold: file of `vreid calibrate` or its folder; None: threshold.json in the folder of the
            checkpoint, of the run or of the exported file, if there is one.
        color: order of the channels of arrays: "rgb", or "bgr" as from OpenCV. It does not apply to files.
        max_gap: see `update`.

    Attributes:
        device: device of the model.
        size: (height, width) of the model's input.
        frames, sampling: clip length T and sampling of a tracklet.
        metric: metric for comparing features; None for a model with its own distance.

    Raises:
        ValueError: `source` is no model; or it has several test lengths or random test frames (the message
            has the override to use); or `threshold` is missing, damaged or of another model.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        device: torch.device | str | None = None,
        *,
        overrides: Iterable[str] = (),
        threshold: str | os.PathLike[str] | None = None,
        color: Literal["rgb", "bgr"] = "rgb",
        max_gap: float | None = None,
    ) -> None:
        self.color = _checks.choice("color", color, ("rgb", "bgr"))
        self._source = os.fspath(source)
        self._encoder = encoder = open_encoder(Path(source), device, overrides)
        if isinstance(encoder.forward, torch.nn.Module):
            encoder.forward.eval()
        self.device, self.size = encoder.device, encoder.size
        self.frames, self.sampling = encoder.frames, encoder.sampling
        self.metric = encoder.metric if isinstance(encoder.metric, str) else None
        self._resize = Resize(self.size)
        self._tracks = Tracks(self._of_images, self.frames, self.sampling, max_gap)
        self._threshold_path = None if threshold is None else Path(threshold)
        if threshold is not None:
            assert self._checked_threshold is not None  # raises the errors of a threshold

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **options: Any) -> Self:
        """Open a folder of `save_pretrained`, or a run. `options`: see `Embedder`.

        Args:
            folder: local folder, or `hf:OWNER/NAME[@REVISION]` for a repository of the Hugging Face Hub,
                which is taken from the cache or downloaded (extra `[hub]`).

        Raises:
            ValueError: no such folder.
            FileNotFoundError: the hub cannot be reached, and its cache does not have the files. The message
                names their URLs.
        """
        if not os.path.isdir(folder) and not is_hub(os.fspath(folder)):
            raise ValueError(
                f"folder: expected a folder with weights.safetensors and state.json, or hf:OWNER/NAME, got "
                f"{os.fspath(folder)!r}"
            )
        return cls(folder, **options)

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Write weights, settings, threshold and a model card to a new folder.

        Args:
            folder: new or empty folder.
            options: `license`, `figures` and `name` of `engine.pretrained.save_pretrained`.

        Raises:
            ValueError: the source of this embedder is an exported or other network file.
        """
        if Path(self._source).is_file():
            raise ValueError(f"source: expected a run or a checkpoint, got the file {self._source!r}")
        save_pretrained(self._source, Path(folder), **options)

    def __repr__(self) -> str:
        how = f"{self.frames} frames, {self.sampling}, {self.size[0]} x {self.size[1]} pixels"
        return f"Embedder({self._source!r}, {how}, on {str(self.device)!r})"

    @cached_property
    def dimensions(self) -> int:
        """D, number of columns of the features."""
        black = torch.zeros(3, *self.size, dtype=torch.uint8, device="cpu")
        return self._features([_in_memory([black])], frames=1).shape[1]

    def embed(self, frames: Sequence[Frame]) -> Tensor:
        """Feature (D,) float32, on the CPU, of a tracklet: frames of one person in temporal order.

        Args:
            frames: at least one, each a uint8 array (h,w,3) or an image file. Sizes may differ.

        Raises:
            TypeError, ValueError: no frames, or one has another dtype or shape or is not a readable image.
        """
        return self._features([self._tracklet("frames", frames)])[0]

    def embed_many(self, tracklets: Iterable[Sequence[Frame]]) -> Tensor:
        """Features (N,D) of N tracklets; see `embed`. Clips of several tracklets share a forward pass."""
        every = [self._tracklet(f"tracklets[{n}]", frames) for n, frames in enumerate(tracklets)]
        return self._features(every)

    def crops(
        self,
        frame: np.ndarray,
        boxes: Any,
        *,
        format: Literal["xyxy", "xywh"] = "xyxy",
    ) -> list[NDArray[np.uint8]]:
        """The crops of boxes in a picture, cut as `vreid tracklets` does: all pixels that a box touches.

        Args:
            frame: picture (H,W,3) uint8.
            boxes: (N,4) in pixels, or an object with `xyxy` such as `supervision.Detections`. Parts outside
                the picture are cut off.
            format: "xyxy" with the corners x1, y1, x2, y2, or "xywh".

        Returns:
            N views of `frame`.

        Raises:
            TypeError, ValueError: `frame` or `boxes` has another dtype or shape, or a box is empty or outside
                the picture.
        """
        picture = _picture("frame", frame)
        _checks.choice("format", format, ("xyxy", "xywh"))
        rows = np.asarray(_checks.array("boxes", getattr(boxes, "xyxy", boxes)), dtype=np.float64)
        if rows.size and (rows.ndim != 2 or rows.shape[1] != 4):
            raise ValueError(f"boxes: expected shape (N,4), got {rows.shape}")
        corners = format == "xyxy" or hasattr(boxes, "xyxy")
        height, width = picture.shape[:2]
        found = []
        for number, row in enumerate(rows.reshape(-1, 4).tolist()):
            if not np.isfinite(row).all():
                raise ValueError(f"boxes[{number}]: expected finite numbers, got {row}")
            x, y, *last = row
            w, h = (last[0] - x, last[1] - y) if corners else last
            check_box(f"boxes[{number}]", (x, y, w, h), (width, height))
            found.append(crop_box(picture, (x, y, w, h)))
        return found

    def boxes(self, frame: np.ndarray, boxes: Any, *, format: Literal["xyxy", "xywh"] = "xyxy") -> Tensor:
        """Features (N,D) of boxes in one picture, for the association in a tracker; arguments as `crops`.

        Each crop is a clip of one frame. For models whose feature does not change if frames are repeated,
        such as `sta` and `drsta`, this is the feature of `embed([crop])`.
        """
        images = [self._image("frame", crop) for crop in self.crops(frame, boxes, format=format)]
        return self._features([_in_memory([image]) for image in images], frames=1)

    def update(self, track_id: Hashable, crop: Frame, *, time: float | None = None) -> None:
        """Add the next frame of a live track. The first frame of an id starts a new track.

        With the sampling "dense" a track keeps at most T - 1 frames; otherwise it keeps all frames, in the
        size of the model's input.

        Args:
            track_id: identifier of the track.
            crop: uint8 array (h,w,3) or image file.
            time: time of the frame, in any unit; required if the embedder has a `max_gap`.

        Raises:
            TypeError, ValueError: a bad crop, or `time` does not increase, or is more than `max_gap` after
                the last frame of the track, because the tracker may have given the id to another person. The
                track is not changed.
        """
        image = read_frame(self._tracklet("crop", [crop]), 0)
        self._tracks.update(track_id, self._resize(image[None])[0], time)

    def feature(self, track_id: Hashable) -> Tensor:
        """Feature (D,) of a live track: that of `embed` for its frames so far.

        Raises:
            ValueError: the track has no frames.
        """
        return self._tracks.feature(track_id)

    def finish(self, track_id: Hashable) -> Tensor:
        """Return `feature(track_id)` and forget the track. The next `update` of this id starts a new one."""
        return self._tracks.finish(track_id)

    @property
    def tracks(self) -> list[Hashable]:
        """Identifiers of the live tracks."""
        return self._tracks.ids()

    def clear(self) -> None:
        """Forget all live tracks."""
        self._tracks.clear()

    @property
    def threshold(self) -> Threshold | None:
        """The threshold, or None if there is none.

        Raises:
            ValueError: it is damaged, or of another model.
        """
        return self._checked_threshold

    def distance(self, a: Tensor, b: Tensor) -> float:
        """Distance of two features (D,) in the metric of the model."""
        first, second = (self._rows(name, value, 1) for name, value in (("a", a), ("b", b)))
        own = self._encoder.metric
        if callable(own):
            return float(own(first, second))
        zero = torch.zeros(1, dtype=torch.int64, device="cpu")
        return float(ops.pair_distances(first, second, zero, zero, self._metric()))

    def compare(self, a: Tensor, b: Tensor) -> Verdict:
        """Whether two features (D,) show the same person.

        Raises:
            ValueError: there is no threshold, or it is of another model.
        """
        threshold = self.threshold
        if threshold is None:
            raise ValueError("threshold: expected one, got none; run `vreid calibrate FEATURES --out RUN`")
        distance = self.distance(a, b)
        return Verdict(distance, threshold.answer(distance))

    def search(self, query: Tensor, gallery: Tensor, top: int = 10) -> list[list[Match]]:
        """The `top` nearest gallery features (G,D) of each query (Q,D), as `vreid search` finds them.

        With a threshold, each has an answer, and the distances of the last 1,000 queries are compared with
        those of the calibration (`engine.drift`). A warning is issued once if they have drifted.

        Raises:
            TypeError, ValueError: a shape or dtype is wrong, or the threshold is of another model.
        """
        threshold, metric = self.threshold, self._metric()
        splits = [
            Split(rows, [{"name": n, "pid": -1, "camid": -1} for n in range(len(rows))], metric, Path(name))
            for name, rows in (
                ("query", self._rows("query", query)),
                ("gallery", self._rows("gallery", gallery)),
            )
        ]
        lists = search(splits[0], splits[1], top)
        if threshold is not None and self._monitor is not None and len(splits[0].tracklets):
            seed = self._monitor.queries
            for drift in self._monitor.add(scores(splits[0], splits[1], lists, seed=seed)):
                warnings.warn(str(drift), stacklevel=2)
        return [
            [
                Match(item["name"], item["distance"], threshold and threshold.answer(item["distance"]))
                for item in entry["nearest"]
            ]
            for entry in lists
        ]

    def _features(self, tracklets: Sequence[Tracklet], frames: int | None = None) -> Tensor:
        """Features (N,D). With `frames`, of clips of this length, one for each tracklet."""
        if not tracklets:
            return torch.empty(0, self.dimensions, dtype=torch.float32, device="cpu")
        encoder = self._encoder
        length, sampling = (encoder.frames, encoder.sampling) if frames is None else (frames, "evenly")
        how = cast(Sampling, sampling)
        clips = ClipDataset(tracklets, length, how, encoder.transform)
        clip_counts = [count_clips(len(t), length, how) for t in tracklets]
        counts = torch.tensor(clip_counts, dtype=torch.int64, device="cpu")
        owner = torch.arange(len(tracklets), device="cpu").repeat_interleave(counts)
        total: Tensor | None = None
        with torch.no_grad():
            for part in torch.arange(len(owner), device="cpu").split(encoder.chunk):
                batch = default_collate([clips[n] for n in part.tolist()])
                feature = features_of(batch, encoder.forward, (), self.device)
                if total is None:
                    total = feature.new_zeros(len(tracklets), feature.shape[1])
                total.index_add_(0, owner[part], feature)
        assert total is not None
        return total / counts[:, None]

    def _of_images(self, images: Sequence[Tensor]) -> Tensor:
        return self._features([_in_memory(images)])[0]

    def _tracklet(self, name: str, frames: Sequence[Frame]) -> Tracklet:
        if isinstance(frames, (str, os.PathLike)):
            raise TypeError(f"{name}: expected a list of frames, got the path {os.fspath(frames)!r}")
        paths: list[str] = []
        images: list[Tensor | None] = []
        for number, frame in enumerate(frames):
            where = f"{name}[{number}]"
            if isinstance(frame, (str, os.PathLike)):
                paths.append(os.fspath(frame))
                images.append(None)
                if not os.path.isfile(frame):
                    raise ValueError(f"{where}: expected an image file, got no such file {paths[-1]!r}")
            else:
                paths.append(where)
                images.append(self._image(where, frame))
        if not paths:
            raise ValueError(f"{name}: expected at least one frame, got none")
        return Tracklet(tuple(paths), -1, -1, name, images=tuple(images))

    def _image(self, name: str, value: Any) -> Tensor:
        """An array (h,w,3) as a new tensor (3,h,w) RGB."""
        pixels = _picture(name, value)
        if self.color == "bgr":
            pixels = pixels[:, :, ::-1]
        return torch.from_numpy(np.array(pixels, order="C")).permute(2, 0, 1)

    def _rows(self, name: str, value: Any, dim: int = 2) -> Tensor:
        """One feature (D,) or several (N,D), depending on `dim`, as (N,D)."""
        rows = _checks.array(name, value).detach().cpu()
        if rows.dim() != dim or rows.shape[-1] != self.dimensions:
            wanted = f"({'N,' if dim == 2 else ''}{self.dimensions})"
            raise ValueError(f"{name}: expected features of shape {wanted}, got {tuple(rows.shape)}")
        return rows.reshape(-1, self.dimensions)

    def _metric(self) -> str:
        if self.metric is None:
            raise ValueError("metric: expected a model with a metric, got one with its own distance function")
        return self.metric

    @cached_property
    def _checked_threshold(self) -> Threshold | None:
        path = self._threshold_path
        found = find_threshold(*self._encoder.folders) if path is None else read_threshold(path)
        if found is not None:
            found.check(self._encoder.identity(), self._metric(), self.dimensions)
        return found

    @cached_property
    def _monitor(self) -> DriftMonitor | None:
        found = self.threshold
        return None if found is None else DriftMonitor(found.content["scores"], found.content["persons"])


def _in_memory(images: Sequence[Tensor]) -> Tracklet:
    names = tuple(f"frame {n}" for n in range(len(images)))
    return Tracklet(names, -1, -1, "images", images=tuple(images))


def _picture(name: str, value: Any) -> NDArray[np.uint8]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a uint8 array (h,w,3), got {type(value).__name__}")
    if value.dtype != np.uint8:
        raise TypeError(f"{name}: expected dtype uint8, got {value.dtype}")
    if value.ndim != 3 or value.shape[2] != 3 or not value.size:
        raise ValueError(f"{name}: expected shape (h,w,3), got {value.shape}")
    return value
