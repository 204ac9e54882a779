"""Tracklets as a torch data set of clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vreid_ext.attributes import attribute_labels
from vreid_ext.data.clips.images import read_image, stack_images
from vreid_ext.data.clips.occlusion import BlackBox
from vreid_ext.data.clips.sampling import Sampling, dense_clips, sample_clip
from vreid_ext.data.clips.transforms import ClipTransform
from vreid_ext.data.records import Tracklet


class ClipDataset(Dataset[dict[str, Any]]):
    """One clip per tracklet, or with sampling="dense" every clip of every tracklet.

    An item is asked for by an index, or by (index, seed), in which case frames and augmentation depend on the
    seed alone and torch's generator is left as it was; that makes a resumed run exact. Items are dicts:

        clip                        (T,3,H,W) float32
        pid, camid, index, label    int; index is the tracklet's, label is there if `labels` was given
        attributes                  (A,) int64, -1 where not known, only with `attributes`
        valid                       (T,) bool, only with "dense": False where the last clip was filled up
        joints                      (T,14,3) float32, only if the tracklet has them: x, y as shares of the
                                    frame's width and height after the transform, and confidence

    With "dense", items count clips in the order of tracklets: a long tracklet is many small items, so memory
    stays bounded by the batch size however many frames it has.

    Args:
        tracklets: what to read.
        frames: T, frames per clip.
        sampling: how they are chosen (`sample_clip`), or "dense" (`dense_clips`).
        transform: (T,3,h,w) uint8 -> (T,3,H,W) float32; None gives the uint8 frames. Frames of differing
            sizes are first brought one by one to its attribute `size`, if it has one. Tracklets with
            joints need a `ClipTransform`, which moves them along.
        labels: class number of each pid.
        attributes: names of the attributes to give.
        black_box: hides a part of every frame.

    Raises:
        ValueError: a bad argument, at construction.
        DatasetError: an image that cannot be read, naming the file, when the item is asked for.
    """

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        frames: int,
        sampling: Sampling | Literal["dense"] = "restricted",
        transform: Callable[[Tensor], Tensor] | None = None,
        labels: Mapping[int, int] | None = None,
        attributes: Sequence[str] | None = None,
        black_box: BlackBox | None = None,
    ) -> None:
        if frames < 1:
            raise ValueError(f"frames: expected at least 1, got {frames}")
        if sampling != "dense" and sampling not in get_args(Sampling):
            raise ValueError(
                f"sampling: expected one of {', '.join(get_args(Sampling))}, dense, got {sampling!r}"
            )
        if transform is not None and not isinstance(transform, ClipTransform):
            joined = [tracklet.name for tracklet in tracklets if tracklet.joints is not None]
            if joined:
                raise TypeError(
                    f"transform: expected a ClipTransform, since {joined[0]} has joints that are to move "
                    f"with the frames, got {type(transform).__name__}"
                )
        if labels is not None:
            unknown = sorted({t.pid for t in tracklets} - labels.keys())
            if unknown:
                raise ValueError(
                    f"labels: no class number for pid {unknown[0]} ({len(unknown)} pids lack one)"
                )
        self.tracklets, self.frames, self.sampling = tracklets, frames, sampling
        self.transform, self.labels = transform, labels
        self.attributes, self.black_box = attributes, black_box
        self._clips: list[tuple[int, int]] | None = None
        if sampling == "dense":
            self._clips = [(i, c) for i, t in enumerate(tracklets) for c in range(-(-len(t) // frames))]

    def __repr__(self) -> str:
        clips = f"{len(self)} clips" if self._clips is not None else "a clip each"
        return f"ClipDataset({len(self.tracklets)} tracklets, {clips} of {self.frames}, {self.sampling})"

    def __len__(self) -> int:
        """Number of items: tracklets, or clips with sampling="dense"."""
        return len(self.tracklets) if self._clips is None else len(self._clips)

    def __getitem__(self, item: int | tuple[int, int]) -> dict[str, Any]:
        if isinstance(item, tuple):
            index, seed = item
            with _seeded(seed):
                return self._load(index)
        return self._load(item)

    def _load(self, item: int) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if self._clips is None:
            index = item
            chosen = sample_clip(len(self.tracklets[index]), self.frames, self.sampling)  # type: ignore[arg-type]
        else:
            index, number = self._clips[item]
            clips, valid = dense_clips(len(self.tracklets[index]), self.frames)
            chosen, extras["valid"] = clips[number], valid[number]
        tracklet = self.tracklets[index]
        if self.labels is not None:
            extras["label"] = self.labels[tracklet.pid]
        if self.attributes is not None:
            extras["attributes"] = attribute_labels(tracklet.attributes, self.attributes)
        images = {i: self._image(tracklet, i) for i in dict.fromkeys(chosen.tolist())}
        frames = [images[i] for i in chosen.tolist()]
        clip = stack_images(frames, getattr(self.transform, "size", None))
        if tracklet.joints is not None:
            sizes = tracklet.joints.new_tensor([(image.shape[2], image.shape[1], 1) for image in frames])
            joints = tracklet.joints[chosen] / sizes[:, None]
            if self.transform is not None:
                assert isinstance(self.transform, ClipTransform)  # checked at construction
                clip, joints = self.transform.with_joints(clip, joints)
            extras["joints"] = joints
        elif self.transform is not None:
            clip = self.transform(clip)
        return {"clip": clip, "pid": tracklet.pid, "camid": tracklet.camid, "index": index, **extras}

    def _image(self, tracklet: Tracklet, frame: int) -> Tensor:
        image = read_image(tracklet.paths[frame])
        return image if self.black_box is None else self.black_box(image, tracklet.name, frame)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds torch's default CPU generator for the block and restores it afterwards."""
    # Not torch.manual_seed: it also touches the GPU's generators, which costs more than an image.
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
