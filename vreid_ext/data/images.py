"""Image files to uint8 tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from .records import DatasetError

# A crop of a person has some ten thousand pixels; past this a file is broken or hostile.
MAX_PIXELS = 64_000_000


def read_image(path: str) -> Tensor:
    """One image as (3,h,w) uint8 RGB.

    Raises:
        DatasetError: naming the file: missing, unreadable, truncated, no image, over 64 million pixels.
    """
    # Pillow, because torchvision's decoders are deprecated since 0.29.
    try:
        with Image.open(path) as image:
            # Known from the header: a decompression bomb is refused before memory is taken for it.
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height} pixels, want at most {MAX_PIXELS}")
            pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path}: no such image; restore it, or leave its tracklet out with on_error='skip'"
        ) from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds for a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(
            f"{path}: cannot be read as an image ({reason}); replace it, or leave its tracklet out with "
            "check='decode', on_error='skip'"
        ) from error


def read_clip(paths: Sequence[str], size: tuple[int, int] | None = None) -> Tensor:
    """Images of one tracklet as (T,3,h,w) uint8; one that comes up several times is read once.

    Args:
        paths: T files.
        size: (height, width) to which frames of differing sizes are resized one by one; None: the first
            frame's.

    Raises:
        DatasetError: as `read_image`.
    """
    images = {path: read_image(path) for path in dict.fromkeys(paths)}
    return stack_images([images[path] for path in paths], size)


def stack_images(images: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
    """Images (3,h,w) as (T,3,h,w); `size` as for `read_clip`."""
    if len({image.shape for image in images}) > 1:
        target = list(size or images[0].shape[-2:])
        images = [resize(image, target) for image in images]
    return torch.stack(list(images))
