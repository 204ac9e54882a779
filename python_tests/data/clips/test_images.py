"""Reading images: every broken file ends in an error that names it."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from vreid_ext.data import DatasetError, read_clip, read_image
from vreid_ext.data.clips.images import stack_images


def picture(path, size=(8, 16), mode="RGB", value=90):
    Image.new(mode, size, value if mode == "L" else (value, 20, 200)).save(path)
    return str(path)


def test_pixels_keep_their_place_and_colour(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a b.PNG")
    image = read_image(str(tmp_path / "a b.PNG"))
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))


def test_frames_are_stacked_without_a_transposition(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 3, 3), dtype=np.uint8)
    decoded = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for images in (list(decoded), list(decoded.contiguous())):
        clip = stack_images(images)
        assert torch.equal(clip, decoded)
        assert clip.is_contiguous(memory_format=torch.channels_last)


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


GREYS = np.array([[0, 0x0101], [0x8080, 0xFFFF]])


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_grey_are_scaled(tmp_path, suffix, order):
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(GREYS.astype(order))
    (image if suffix == "tiff" else image.convert("I").convert("I;16")).save(path)
    assert read_image(str(path)).tolist() == [[[0, 1], [128, 255]]] * 3


@pytest.mark.parametrize("dtype", ["f4", "i4"])
@pytest.mark.parametrize("suffix", ["tiff", "png"])
def test_numbers_without_a_known_white_are_refused(tmp_path, dtype, suffix):
    path = tmp_path / f"a.{suffix}"  # a TIFF, whatever its name
    Image.fromarray(np.linspace(0, 1, 4).reshape(2, 2).astype(dtype)).save(path, "TIFF")
    with pytest.raises(DatasetError, match=rf"a\.{suffix}: .*expected 8 or 16 bits per channel, got 32-bit"):
        read_image(str(path))


COLOURS = [[(250, 10, 20), (10, 250, 20)], [(10, 20, 250), (240, 240, 240)]]


def coloured(size=2):
    pixels = np.array(COLOURS, np.uint8).repeat(size // 2, 0).repeat(size // 2, 1)
    return Image.fromarray(pixels)


def lab(image):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))


@pytest.mark.parametrize(
    ("suffix", "convert", "tolerance"),
    [
        ("png", lambda image: image.convert("P", palette=Image.Palette.ADAPTIVE), 0),
        ("gif", lambda image: image.convert("P", palette=Image.Palette.ADAPTIVE), 0),
        ("png", lambda image: image.convert("RGBA"), 0),
        ("webp", lambda image: image.convert("RGBA"), 40),
        ("tiff", lambda image: image.convert("P", palette=Image.Palette.ADAPTIVE).convert("PA"), 0),
        ("tiff", lambda image: image.convert("CMYK"), 0),
        ("jpg", lambda image: image.convert("CMYK"), 60),
        ("tiff", lambda image: image.convert("YCbCr"), 2),
        ("tiff", lab, 20),
        ("tiff", lambda image: image.convert("RGBX"), 0),
        ("avif", lambda image: image, 60),
        ("ppm", lambda image: image, 0),
    ],
    ids=["P", "P-gif", "RGBA", "RGBA-webp", "PA", "CMYK", "CMYK-jpg", "YCbCr", "LAB", "RGBX", "avif", "ppm"],
)
def test_every_mode_of_colour_shows_the_same(tmp_path, suffix, convert, tolerance):
    image = coloured(32)
    convert(image).save(tmp_path / f"a.{suffix}")
    read = read_image(str(tmp_path / f"a.{suffix}"))
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    inner = (..., slice(4, 12), slice(20, 28))  # JPEG, WebP and AVIF blur the borders between colours
    where = ... if tolerance < 10 else inner
    assert (read[where].int() - expected[where].int()).abs().max() <= tolerance


@pytest.mark.parametrize(("mode", "suffix"), [("1", "png"), ("L", "png"), ("LA", "png"), ("L", "bmp")])
def test_modes_of_grey(tmp_path, mode, suffix):
    image = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    assert read_image(str(tmp_path / f"a.{suffix}")).tolist() == [[[0, 255], [255, 0]]] * 3


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_shows_black(tmp_path, suffix, mode):
    alpha = Image.fromarray(np.array([[255, 0], [51, 255]], np.uint8))
    image = Image.new("L" if mode == "LA" else "RGB", (2, 2), "white")
    image.putalpha(alpha)
    image.save(tmp_path / f"a.{suffix}")
    assert read_image(str(tmp_path / f"a.{suffix}"))[0].tolist() == [[255, 0], [51, 255]]


def test_a_transparent_colour_of_a_palette_or_of_a_header_shows_black(tmp_path):
    for mode, value in (("P", 1), ("L", 200), ("RGB", (9, 8, 7))):
        image = Image.new(mode, (2, 1), value)
        image.putpixel((0, 0), 2 if mode == "P" else 100 if mode == "L" else (1, 2, 3))
        if mode == "P":
            image.putpalette([0, 0, 0, 9, 8, 7, 200, 200, 200])
        image.save(tmp_path / "a.png", transparency=value)
        assert read_image(str(tmp_path / "a.png"))[:, 0, 1].tolist() == [0, 0, 0]
        assert read_image(str(tmp_path / "a.png"))[:, 0, 0].sum() > 0


@pytest.mark.filterwarnings("error")
def test_transparency_of_each_colour_of_a_palette(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([200, 100, 50, 200, 100, 50, 200, 100, 50])
    for x in range(3):
        image.putpixel((x, 0), x)
    image.save(tmp_path / "a.png", transparency=bytes([0, 51, 255]))
    assert read_image(str(tmp_path / "a.png"))[:, 0].T.tolist() == [[0, 0, 0], [40, 20, 10], [200, 100, 50]]


def test_a_clip_of_many_modes_is_one_clip(tmp_path):
    image = Image.new("RGB", (8, 16), (120, 120, 120))
    paths = []
    for number, mode in enumerate(("RGB", "L", "P", "RGBA", "1")):
        paths.append(str(tmp_path / f"{number}.png"))
        image.convert(mode, palette=Image.Palette.ADAPTIVE).save(paths[-1])
    turned = Image.Exif()
    turned[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "9.jpg", exif=turned)
    clip = read_clip([*paths, str(tmp_path / "9.jpg")])
    assert clip.shape == (6, 3, 16, 8)
    assert (clip[[0, 1, 2, 3, 5]].int() - 120).abs().max() <= 2


def test_a_fully_transparent_image_is_refused(tmp_path):
    Image.new("RGBA", (4, 4), (200, 100, 50, 0)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png: .*got a fully transparent image"):
        read_image(str(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    """One scene, red at the upper left and blue at the lower left, whichever way it is stored."""
    upright = Image.new("RGB", (16, 32), "white")
    upright.paste("red", (0, 0, 8, 16))
    upright.paste("blue", (0, 16, 8, 32))
    flip = Image.Transpose
    stored = {
        1: [], 2: [flip.FLIP_LEFT_RIGHT], 3: [flip.ROTATE_180], 4: [flip.FLIP_TOP_BOTTOM],
        5: [flip.TRANSPOSE], 6: [flip.ROTATE_90], 7: [flip.TRANSVERSE], 8: [flip.ROTATE_270],
    }[orientation]  # fmt: skip
    image = upright
    for step in stored:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    read = read_image(str(tmp_path / f"a.{suffix}"))
    assert read.shape == (3, 32, 16)
    assert (read[:, 3, 3] - torch.tensor([255, 0, 0])).abs().max() < 40
    assert (read[:, 28, 3] - torch.tensor([0, 0, 255])).abs().max() < 40
    assert read[:, 16, 12].min() > 200


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_animations_and_stacks_are_refused(tmp_path, suffix):
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    pictures[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pictures[1:])
    with pytest.raises(DatasetError, match=rf"a\.{suffix}: .*got an animation or stack of 3"):
        read_image(str(tmp_path / f"a.{suffix}"))


def test_of_a_photo_with_further_pictures_the_first_is_taken(tmp_path):
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    pictures[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pictures[1:])
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert read_image(str(tmp_path / "a.jpg"))[0].min() > 240
