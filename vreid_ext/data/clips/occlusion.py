"""Artificial occlusion: a black box in every frame (STAL, section IV-E and Table VII)."""

from __future__ import annotations

import dataclasses
import hashlib
import os

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class BlackBox:
    """Draws a black square of `side` x `side` pixels at a random position into every image.

    The square is drawn into the stored image, before any transform. The position depends only on the seed,
    the name of the tracklet and the frame index, so training and all evaluations see the same occlusion on
    every machine.
    """

    side: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side: expected at least 1 pixel, got {self.side}")

    def __call__(self, image: Tensor, tracklet: str, frame: int) -> Tensor:
        """A copy of the image (3,h,w) with the box. If the box is larger, it covers the whole axis."""
        digest = hashlib.blake2b(os.fsencode(f"{self.seed}/{tracklet}/{frame}"), digest_size=16).digest()
        height, width = image.shape[-2:]
        top = int.from_bytes(digest[:8], "little") % (max(height - self.side, 0) + 1)
        left = int.from_bytes(digest[8:], "little") % (max(width - self.side, 0) + 1)
        image = image.clone()
        image[:, top : top + self.side, left : left + self.side] = 0
        return image
