"""Reading of image files as uint8 tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from vreid_ext.data.records import DatasetError

# A crop of a person has about ten thousand pixels. A much larger image is damaged or malicious.
MAX_PIXELS = 64_000_000


def read_image(path: str) -> Tensor:
    """Read one image as (3,h,w) uint8 RGB, rotated according to its EXIF orientation.

    16-bit grayscale is scaled from [0, 65535] to [0, 255]. Transparent pixels are composited onto black. From
    a file with several pictures in MPO format, the first one is read.

    Raises:
        DatasetError: the file is missing, unreadable, truncated, not an image, larger than 64 million pixels,
            an animation, fully transparent, or stores 32-bit integers or floats, which have no defined white
            level. The message names the file.
    """
    # Pillow is used because torchvision's decoders are deprecated since 0.29.
    try:
        with Image.open(path) as image:
            # The size is in the header, so decompression bombs are rejected before memory is allocated.
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(
                    f"expected at most {MAX_PIXELS} pixels, got {width} x {height}"
                )
            pictures = getattr(image, "n_frames", 1)
            if pictures > 1 and image.format != "MPO":
                raise ValueError(f"expected a single picture, got an animation or stack of {pictures}")
            pixels = np.array(_as_rgb(image))
        return torch.from_numpy(pixels).permute(2, 0, 1)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path}: no such image; restore it, or exclude its tracklet with on_error='skip'"
        ) from error
    except Exception as error:  # Pillow's decoders raise many different exceptions for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(
            f"{path}: cannot be read as an image ({reason}); replace it, or exclude its tracklet with "
            "check='decode', on_error='skip'"
        ) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to upright 8-bit RGB."""
    ImageOps.exif_transpose(image, in_place=True)
    # Pillow decodes 16-bit PPM, and before version 10.4 also 16-bit PNG, to 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = (np.array(image).astype(np.int64) + 128) // 257
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ValueError(f"expected 8 or 16 bits per channel, got 32-bit {kind}")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (0, 0):
        raise ValueError("expected visible pixels, got a fully transparent image")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")


def read_clip(paths: Sequence[str], size: tuple[int, int] | None = None) -> Tensor:
    """Read images of one tracklet as (T,3,h,w) uint8. A path that occurs several times is read once.

    Args:
        paths: T files.
        size: (height, width) to which the frames are resized if they differ in size; None: the size of the
            first frame.

    Raises:
        DatasetError: see `read_image`.
    """
    images = {path: read_image(path) for path in dict.fromkeys(paths)}
    return stack_images([images[path] for path in paths], size)


def stack_images(images: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
    """Stack images (3,h,w) to (T,3,h,w). `size`: see `read_clip`."""
    if len({image.shape for image in images}) > 1:
        target = list(size or images[0].shape[-2:])
        images = [resize(image, target) for image in images]
    # In the memory format of decoded images, which the resize keeps, so that no copy transposes them.
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
