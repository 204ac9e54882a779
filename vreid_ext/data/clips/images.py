"""Image files to uint8 tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from vreid_ext.data.records import DatasetError

# A crop of a person has some ten thousand pixels; past this a file is broken or hostile.
MAX_PIXELS = 64_000_000


def read_image(path: str) -> Tensor:
    """One image as (3,h,w) uint8 RGB, turned upright as its EXIF orientation says.

    16-bit grey is scaled from [0, 65535] to [0, 255]. Transparent pixels are laid over black. Of a photo that
    holds further pictures (MPO) the first is taken.

    Raises:
        DatasetError: naming the file: missing, unreadable, truncated, no image, over 64 million pixels, an
            animation, fully transparent, or of numbers whose white is not known (32-bit integers and floats).
    """
    # Pillow, because torchvision's decoders are deprecated since 0.29.
    try:
        with Image.open(path) as image:
            # Known from the header: a decompression bomb is refused before memory is taken for it.
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(
                    f"expected at most {MAX_PIXELS} pixels, got {width} x {height}"
                )
            pictures = getattr(image, "n_frames", 1)
            if pictures > 1 and image.format != "MPO":
                raise ValueError(f"expected one picture, got an animation or stack of {pictures}")
            pixels = np.array(_as_rgb(image))
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


def _as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in 8-bit RGB, upright."""
    ImageOps.exif_transpose(image, in_place=True)
    # PPM, and PNG before Pillow 10.4, give 16 bits as 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = (np.array(image).astype(np.int64) + 128) // 257
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ValueError(f"expected 8 or 16 bits a channel, got 32-bit {kind}, whose white is not known")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (0, 0):
        raise ValueError("expected something to see, got full transparency")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")


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
