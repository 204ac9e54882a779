"""Thumbnail strips: frames of a tracklet side by side in one small JPEG."""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import to_pil_image

from vreid_ext._files import whole_file
from vreid_ext.data import BlackBox, Corruption, Tracklet, sample_clip
from vreid_ext.data.clips.dataset import read_frame

FRAMES = 8
CELL = (64, 128)  # width, height; must agree with .thumb in page.css
_BORDER = (128, 128, 128)


def strip_frames(tracklet: Tracklet) -> int:
    """Number of frames in the strip of a tracklet: `FRAMES`, or all frames if it has fewer."""
    return min(FRAMES, len(tracklet))


def strip_name(tracklet: Tracklet) -> str:
    """File name of a tracklet's strip: a hash of the image paths, so that it needs no escaping."""
    return hashlib.blake2b(os.fsencode("\0".join(tracklet.paths)), digest_size=8).hexdigest() + ".jpg"


def write_strips(
    tracklets: Iterable[Tracklet],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    black_box: BlackBox | None = None,
    corruption: Corruption | None = None,
) -> None:
    """Write the strips that are missing, or that are outdated because their images have changed.

    Args:
        progress: called with (strips done, total number of strips).
        black_box, corruption: applied to the frames, as in `ClipDataset`.

    Raises:
        DatasetError: an image cannot be read.
    """
    distinct = list({tracklet.paths: tracklet for tracklet in tracklets}.values())
    folder.mkdir(parents=True, exist_ok=True)
    # Threads are enough: Pillow releases the GIL while it decodes and resizes.
    with ThreadPoolExecutor() as pool:
        written = pool.map(lambda item: _write(item, folder, black_box, corruption), distinct)
        for done, _ in enumerate(written, start=1):
            if progress is not None:
                progress(done, len(distinct))


def _write(
    tracklet: Tracklet, folder: Path, black_box: BlackBox | None, corruption: Corruption | None
) -> None:
    count = strip_frames(tracklet)
    frames = sample_clip(len(tracklet), count, "evenly").tolist()
    file = folder / strip_name(tracklet)
    stamp = _stamp((tracklet.paths[frame] for frame in frames), black_box, corruption)
    if _stamp_in(file) == stamp:
        return
    width, height = CELL
    strip = Image.new("RGB", (count * width, height))
    for place, frame in enumerate(frames):
        image = read_frame(tracklet, frame, black_box=black_box, corruption=corruption)
        strip.paste(ImageOps.pad(to_pil_image(image), CELL, color=_BORDER), (place * width, 0))
    with whole_file(file) as temporary:
        strip.save(temporary, "JPEG", quality=80, comment=stamp)


def _stamp(paths: Iterable[str], *changes: BlackBox | Corruption | None) -> bytes:
    """Modification times and sizes of the images, which are compared for equality because clocks may be set
    back, and the changes to their pixels.
    """
    states = [os.stat(path) for path in paths]
    return repr([(state.st_mtime_ns, state.st_size) for state in states] + [*filter(None, changes)]).encode()


def _stamp_in(file: Path) -> bytes | None:
    if not file.is_file():
        return None
    with Image.open(file) as strip:
        return strip.info.get("comment")
