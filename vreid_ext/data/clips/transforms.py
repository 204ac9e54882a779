"""Transforms of a clip (T,3,h,w) uint8 -> (T,3,H,W) float32.

Random parameters are drawn once per clip, so all frames and their joints are flipped, cropped and erased in
the same way. With `per_frame` they are drawn for each frame. Random numbers come from torch's default
generator, which `ClipDataset` seeds for each item.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from vreid_ext.data.pose.joints import mirror_joints

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Resize(nn.Module):
    """Antialiased bilinear resize of uint8 frames to (height, width); a no-op if they have that size."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, clip: Tensor) -> Tensor:
        if tuple(clip.shape[-2:]) == self.size:
            return clip
        # torchvision's uint8 kernel is 2.5 times faster for channels_last.
        return v2.functional.resize(clip.contiguous(memory_format=torch.channels_last), list(self.size))


class Normalize(nn.Module):
    """(x / 255 - mean) / std of uint8 frames.

    Computed in place as x * scale + offset, which is 3 times faster than torchvision.transforms.v2.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean_, std_ = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (mean, std))
        self.scale: Tensor
        self.offset: Tensor
        self.register_buffer("scale", (1 / (255 * std_)).float())
        self.register_buffer("offset", (-mean_ / std_).float())

    def forward(self, clip: Tensor) -> Tensor:
        clip = clip.to(torch.float32, memory_format=torch.contiguous_format)
        return clip.mul_(self.scale).add_(self.offset)


class Flip(nn.Module):
    """Horizontal flip with the given probability."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, clip: Tensor, joints: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if torch.rand((), dtype=torch.float32) >= self.probability:
            return clip, joints
        return clip.flip(-1), None if joints is None else mirror_joints(joints)


class Shift(nn.Module):
    """Pad each side with `pixels` of black, then crop randomly to the original size."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, clip: Tensor, joints: Tensor | None) -> tuple[Tensor, Tensor | None]:
        height, width = clip.shape[-2:]
        top, left = torch.randint(2 * self.pixels + 1, (2,)).tolist()
        bordered = F.pad(clip, [self.pixels] * 4)
        if joints is not None:
            moved = joints.new_tensor([(self.pixels - left) / width, (self.pixels - top) / height, 0])
            joints = joints + moved
        return bordered[..., top : top + height, left : left + width], joints


class ClipTransform(nn.Module):
    """A sequence of clip transforms with output size `size` = (height, width)."""

    def __init__(self, steps: Sequence[nn.Module], size: tuple[int, int], *, per_frame: bool = False) -> None:
        super().__init__()
        self.steps, self.size, self.per_frame = nn.ModuleList(steps), size, per_frame

    def forward(self, clip: Tensor) -> Tensor:
        return self._chain(clip, None)[0]

    def with_joints(self, clip: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Transform a clip and its joints (T,14,3), x and y as fractions of the frame's width and height."""
        clip, moved = self._chain(clip, joints)
        assert moved is not None
        return clip, moved

    def _chain(self, clip: Tensor, joints: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if not self.per_frame:
            return self._together(clip, joints)
        frames, moved = zip(
            *(
                self._together(clip[t : t + 1], None if joints is None else joints[t : t + 1])
                for t in range(len(clip))
            ),
            strict=True,
        )
        return torch.cat(frames), None if joints is None else torch.cat(moved)

    def _together(self, clip: Tensor, joints: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for step in self.steps:
            if isinstance(step, Flip | Shift):
                clip, joints = step(clip, joints)
            else:
                clip = step(clip)
        return clip, joints


def train_transform(
    height: int,
    width: int,
    *,
    flip: float = 0.5,
    crop: int = 0,
    erase: float = 0.0,
    per_frame: bool = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> ClipTransform:
    """Training transform: resize to (height, width), random flip, random crop, normalization, random erasing.

    Args:
        height: H in pixels.
        width: W in pixels.
        flip: probability of a horizontal flip.
        crop: number of black pixels padded to each side before a random crop to (height, width); 0: no crop.
        erase: probability that one rectangle (2 to 33 % of the area; Zhong et al., AAAI 2020) is set to the
            mean color.
        per_frame: draw the flip, the crop and the rectangle for each frame instead of once per clip. If all
            frames are erased at the same position, temporal attention gets no signal that one frame is better
            than another.
        mean: (3,) mean of the RGB channels, scaled to [0, 1]; default: ImageNet's.
        std: (3,) standard deviation of the RGB channels; default: ImageNet's.

    Raises:
        TypeError, ValueError: an invalid argument, named in the message.
    """
    size = _size(height, width)
    _probability("flip", flip)
    _probability("erase", erase)
    if isinstance(crop, bool) or not isinstance(crop, int):
        raise TypeError(f"crop: expected the padding in pixels as an integer, 0 for no crop, got {crop!r}")
    if crop < 0:
        raise ValueError(f"crop: expected at least 0 pixels, got {crop}")
    steps: list[nn.Module] = [Resize(size)]
    if flip:
        steps.append(Flip(flip))
    if crop:
        steps.append(Shift(crop))
    steps.append(Normalize(mean, std))
    if erase:
        # After normalization the mean color is zero.
        steps.append(v2.RandomErasing(erase, scale=(0.02, 0.33), value=0, inplace=True))
    return ClipTransform(steps, size, per_frame=per_frame)


def test_transform(
    height: int,
    width: int,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,  # noqa: PT028 -- not a test
    std: Sequence[float] = IMAGENET_STD,  # noqa: PT028
) -> ClipTransform:
    """Test transform: resize to (height, width) and normalize.

    Raises:
        TypeError, ValueError: an invalid argument, named in the message.
    """
    size = _size(height, width)
    return ClipTransform([Resize(size), Normalize(mean, std)], size)


def _size(height: int, width: int) -> tuple[int, int]:
    for name, value in (("height", height), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}: expected an integer number of pixels, got {value!r}")
        if value < 1:
            raise ValueError(f"{name}: expected at least 1 pixel, got {value}")
    return height, width


def _probability(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a probability as a number in [0, 1], got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a probability in [0, 1], got {value}")
