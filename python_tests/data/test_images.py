"""Reading images: every broken file ends in an error that names it."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from vreid_ext.data import DatasetError, read_clip, read_image


def picture(path, size=(8, 16), mode="RGB", value=90):
    Image.new(mode, size, value if mode == "L" else (value, 20, 200)).save(path)
    return str(path)


def test_pixels_keep_their_place_and_colour(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a b.PNG")
    image = read_image(str(tmp_path / "a b.PNG"))
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_formats_and_grey_images_give_three_colours(tmp_path, suffix, mode):
    image = read_image(picture(tmp_path / f"a.{suffix}", mode=mode))
    assert image.shape == (3, 16, 8)
    assert (image[0].float() - 90).abs().max() <= 4


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.9])
def test_truncated_file_is_named(tmp_path, suffix, part):
    path = tmp_path / f"half.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(DatasetError, match=rf"half\.{suffix}: cannot be read as an image"):
        read_image(str(path))


def test_missing_file_and_text_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.jpg: no such image"):
        read_image(str(tmp_path / "none.jpg"))
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(DatasetError, match=r"page\.jpg: cannot be read"):
        read_image(str(tmp_path / "page.jpg"))


@pytest.mark.parametrize("side", [9_000, 40_000])
def test_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "bomb.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    with pytest.raises(DatasetError, match=r"bomb\.png: .*pixels"):
        read_image(str(path))


def test_clip_repeats_and_resizes(tmp_path):
    small, large = picture(tmp_path / "s.png", (4, 8)), picture(tmp_path / "l.png", (8, 16), value=200)
    assert read_clip([small, small, small]).shape == (3, 3, 8, 4)
    mixed = read_clip([small, large, small])
    assert mixed.shape == (3, 3, 8, 4)
    assert mixed[:, 0, 0, 0].tolist() == [90, 200, 90]
    assert read_clip([small, large], size=(10, 6)).shape == (2, 3, 10, 6)
    assert read_clip([large, large], size=(10, 6)).shape == (2, 3, 16, 8)
