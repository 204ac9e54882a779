"""`ClipDataset`: a torch data set of clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vreid_ext.attributes import attribute_labels
from vreid_ext.data.clips.corruption import Corruption
from vreid_ext.data.clips.images import read_image, stack_images
from vreid_ext.data.clips.occlusion import BlackBox
from vreid_ext.data.clips.sampling import Sampling, count_clips, dense_clips, sample_clip
from vreid_ext.data.clips.transforms import ClipTransform
from vreid_ext.data.records import Tracklet


def read_frame(
    tracklet: Tracklet,
    frame: int,
    *,
    black_box: BlackBox | None = None,
    corruption: Corruption | None = None,
) -> Tensor:
    """Frame number `frame` of a tracklet (3,h,w) uint8, with the black box and then the corruption applied.

    Raises:
        DatasetError: the image cannot be read. The message names the file.
    """
    in_memory = None if tracklet.images is None else tracklet.images[frame]
    image = read_image(tracklet.paths[frame]) if in_memory is None else in_memory
    if black_box is not None:
        image = black_box(image, tracklet.name, frame)
    return image if corruption is None else corruption(image, tracklet, frame)


class ClipDataset(Dataset[dict[str, Any]]):
    """A data set with one clip per tracklet, or all clips of all tracklets with sampling="dense".

    `dataset[index]` uses torch's default generator. `dataset[index, seed]` derives the frames and the
    augmentation from the seed only and restores the state of the default generator, so that a resumed run
    reproduces the same clips. Items are dicts:

        clip                        (T,3,H,W) float32
        pid, camid, index, label    int; index of the tracklet; label only if `labels` is given
        attributes                  (A,) int64, -1 if unknown; only if `attributes` is given
        valid                       (T,) bool, False for padded frames of the last clip; only with "dense"
        joints                      (T,14,3) float32, only if the tracklet has joints: x and y as fractions
                                    of the frame's width and height after the transform, and confidence

    With "dense", the items are the clips of the first tracklet, then those of the second, and so on. Each
    item has T frames, so the batch size bounds the memory use also for long tracklets.

    Args:
        tracklets: tracklets to read.
        frames: T, number of frames per clip.
        sampling: how frames are selected (`sample_clip`), or "dense" (`dense_clips`).
        transform: (T,3,h,w) uint8 -> (T,3,H,W) float32; None: return the uint8 frames. If the frames of a
            clip differ in size, each is first resized to `transform.size`, if there is such an attribute.
            Tracklets with joints require a `ClipTransform`, which transforms the joints too.
        labels: class index of each pid.
        attributes: names of the attributes to return.
        black_box: occludes a part of every frame.
        corruption: corrupts some frames, after the black box.

    Raises:
        TypeError, ValueError: an invalid argument, at construction.
        DatasetError: an image cannot be read, when the item is loaded. The message names the file.
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
        corruption: Corruption | None = None,
    ) -> None:
        if frames < 1:
            raise ValueError(f"frames: expected at least 1, got {frames}")
        if sampling != "dense" and sampling not in get_args(Sampling):
            raise ValueError(
                f"sampling: expected one of {', '.join(get_args(Sampling))}, dense, got {sampling!r}"
            )
        if transform is not None and not isinstance(transform, ClipTransform):
            with_joints = [tracklet.name for tracklet in tracklets if tracklet.joints is not None]
            if with_joints:
                raise TypeError(
                    f"transform: expected a ClipTransform, because tracklet {with_joints[0]} has joints, "
                    f"got {type(transform).__name__}"
                )
        if labels is not None:
            unknown = sorted({t.pid for t in tracklets} - labels.keys())
            if unknown:
                raise ValueError(
                    f"labels: expected a class index for each pid, got none for pid {unknown[0]} "
                    f"({len(unknown)} pids in total)"
                )
        self.tracklets, self.frames, self.sampling = tracklets, frames, sampling
        self.transform, self.labels = transform, labels
        self.attributes, self.black_box, self.corruption = attributes, black_box, corruption
        self._clips: list[tuple[int, int]] | None = None
        if sampling == "dense":
            self._clips = [
                (i, c) for i, t in enumerate(tracklets) for c in range(count_clips(len(t), frames, sampling))
            ]

    def __repr__(self) -> str:
        clips = f"{len(self)} clips" if self._clips is not None else "one clip per tracklet"
        return f"ClipDataset({len(self.tracklets)} tracklets, {clips} of {self.frames}, {self.sampling})"

    def __len__(self) -> int:
        """Number of tracklets, or of clips with sampling="dense"."""
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
        images = {
            i: read_frame(tracklet, i, black_box=self.black_box, corruption=self.corruption)
            for i in dict.fromkeys(chosen.tolist())
        }
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


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Context manager that seeds torch's default CPU generator and restores its state on exit."""
    # torch.manual_seed also seeds the GPU generators, which takes longer than loading an image.
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
