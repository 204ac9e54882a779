import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vreid_ext.data import BlackBox, Corruption, DatasetError, Tracklet
from vreid_ext.report.strips import CELL, FRAMES, strip_frames, strip_name, write_strips


def tracklet(folder, colors, size=(16, 32)):
    paths = []
    for number, color in enumerate(colors):
        paths.append(str(folder / f"{len(colors)}-{number}.png"))
        Image.new("RGB", size, color).save(paths[-1])
    return Tracklet(tuple(paths), 1, 1, "<name>")


def opened(path):
    with Image.open(path) as image:
        return image.copy()


def test_frames_stand_side_by_side_from_first_to_last(tmp_path):
    long = tracklet(tmp_path, [(10 * number, 0, 0) for number in range(20)])
    short = tracklet(tmp_path, ["red", "lime"])
    counted = []
    write_strips([long, short, long], tmp_path / "strips", lambda *step: counted.append(step))
    assert counted == [(1, 2), (2, 2)]
    assert strip_frames(long) == FRAMES
    image = opened(tmp_path / "strips" / strip_name(short))
    assert image.size == (2 * CELL[0], CELL[1])
    red, green = (image.getpixel((CELL[0] * place + 32, 64)) for place in (0, 1))
    assert red[0] > 200 > 50 > red[1]
    assert green[1] > 200 > 50 > green[0]
    image = opened(tmp_path / "strips" / strip_name(long))
    edges = [image.getpixel((x, 64))[0] for x in (32, CELL[0] * FRAMES - 32)]
    assert edges == pytest.approx([0, 190], abs=5)


def test_a_wide_frame_keeps_its_shape(tmp_path):
    wide = tracklet(tmp_path, ["red"], size=(64, 32))
    write_strips([wide], tmp_path)
    image = opened(tmp_path / strip_name(wide))
    assert image.getpixel((32, 64))[0] > 200
    assert abs(image.getpixel((32, 10))[0] - 128) < 5


@pytest.mark.parametrize("later", [2000, 500], ids=["newer", "the clock went back"])
def test_strips_are_drawn_again_only_when_an_image_has_changed(tmp_path, later):
    two = tracklet(tmp_path, ["red", "lime"])
    for path in two.paths:
        os.utime(path, (1000, 1000))
    write_strips([two], tmp_path)
    file = tmp_path / strip_name(two)
    os.utime(file, (1500, 1500))
    write_strips([two], tmp_path)
    assert file.stat().st_mtime == 1500
    os.utime(two.paths[0], (later, later))
    write_strips([two], tmp_path)
    assert file.stat().st_mtime > 2000


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"torn\.png"):
        write_strips([Tracklet((str(tmp_path / "torn.png"),), 1, 1, "torn")], tmp_path / "strips")


def test_the_frames_are_those_that_the_model_sees(tmp_path):
    two = tracklet(tmp_path, ["red", "lime"])
    strips = tmp_path / "strips"
    passer_by = Corruption([two, replace(two, pid=2)], 1.0)
    for changes in ({}, {"corruption": passer_by}, {"black_box": BlackBox(64)}):
        write_strips([two], strips, **changes)
        (file,) = strips.iterdir()
        red = np.asarray(opened(file))[8:-8, 8 : CELL[0] - 8, 0]  # of the first frame
        changed = (red < 200).mean()
        assert changed == 0 if not changes else changed > 0.3
