"""Artificial corruption of some frames of a tracklet, to test whether a method copes with bad frames."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur, resize

from vreid_ext.data.clips.images import read_image
from vreid_ext.data.records import Tracklet


class Corruption:
    """Replaces a share of all frames by a corrupted copy.

    Each frame is corrupted with probability `share`, in one of three ways with equal probability:

        black box   a black rectangle of 0.6 h x 0.8 w at a random position
        passer-by   a frame of another person covers 0.5 w to 0.8 w, from the left or the right side
        blur        Gaussian blur with a standard deviation of h / 16

    All random numbers are derived from the seed, the name of the tracklet and the index of the frame. All
    models and all evaluations therefore see the same corrupted frames, on every machine.

    Args:
        tracklets: tracklets whose frames may pass by.
        share: probability that a frame is corrupted, in (0, 1].
        seed: random seed, at least 0.

    Call: `corruption(image, tracklet, frame)` with an image (3,h,w) uint8 that is frame number `frame` of
    `tracklet`, returns the image itself or a corrupted copy.

    Raises:
        ValueError: an argument is out of range, or all tracklets belong to one person.
    """

    def __init__(self, tracklets: Sequence[Tracklet], share: float, seed: int = 0) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share: expected above 0 and at most 1, got {share}")
        if seed < 0:
            raise ValueError(f"seed: expected at least 0, got {seed}")
        if len({tracklet.pid for tracklet in tracklets}) < 2:
            raise ValueError(
                f"tracklets: expected at least two persons, one of whom can pass by, got {tracklets!r:.80}"
            )
        self.tracklets, self.share, self.seed = tracklets, share, seed

    def __repr__(self) -> str:
        return f"Corruption({len(self.tracklets)} tracklets, share {self.share}, seed {self.seed})"

    def __call__(self, image: Tensor, tracklet: Tracklet, frame: int) -> Tensor:
        corrupted, kind, *place = self._uniform(tracklet.name, frame)
        if corrupted >= self.share:
            return image
        if kind < 1 / 3:
            return _boxed(image, *place[:2])
        if kind < 2 / 3:
            return _covered(image, self._passer_by(tracklet, *place[:2]), *place[2:4])
        return gaussian_blur(image, [1 + 2 * (3 * image.shape[1] // 16)] * 2, [image.shape[1] / 16] * 2)

    def corrupts(self, tracklet: Tracklet, frame: int) -> bool:
        """Whether a frame is corrupted."""
        return self._uniform(tracklet.name, frame)[0] < self.share

    def _uniform(self, name: str, frame: int) -> list[float]:
        """Eight numbers in [0, 1)."""
        digest = hashlib.blake2b(os.fsencode(f"{self.seed}/{name}/{frame}"), digest_size=64).digest()
        return [int.from_bytes(digest[i : i + 6], "little") / 2**48 for i in range(0, 64, 8)]

    def _passer_by(self, tracklet: Tracklet, which: float, when: float) -> Tensor:
        """A frame of the first tracklet of another person, counted from a random tracklet."""
        first = int(which * len(self.tracklets))
        order = (self.tracklets[(first + n) % len(self.tracklets)] for n in range(len(self.tracklets)))
        other = next(each for each in order if each.pid != tracklet.pid)
        return read_image(other.paths[int(when * len(other))])


def _boxed(image: Tensor, down: float, across: float) -> Tensor:
    height, width = image.shape[1:]
    h, w = round(0.6 * height), round(0.8 * width)
    top, left = round(down * (height - h)), round(across * (width - w))
    image = image.clone()
    image[:, top : top + h, left : left + w] = 0
    return image


def _covered(image: Tensor, other: Tensor, amount: float, side: float) -> Tensor:
    height, width = image.shape[1:]
    other = resize(other, [height, width])
    cover = max(1, round((0.5 + 0.3 * amount) * width))
    image = image.clone()
    if side < 1 / 2:
        image[:, :, :cover] = other[:, :, width - cover :]
    else:
        image[:, :, width - cover :] = other[:, :, :cover]
    return image
