"""Every system's attention is drawn by the drawing registered for what it returns."""

from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from PIL import Image

from vreid_ext.data import Tracklet
from vreid_ext.engine import load_recipe
from vreid_ext.models import build_model
from vreid_ext.report.attention import draw_attended, picture_attention


class Own(NamedTuple):
    shape: tuple[int, ...]


@pytest.fixture
def tracklet(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    for path in paths:
        Image.new("RGB", (16, 32), "red").save(path)
    return Tracklet(tuple(paths), 1, 1, "a tracklet")


def model_that_attends(attend):
    model = torch.nn.Linear(1, 1)
    model.attend = attend
    return model


def test_a_system_registers_a_drawing_of_its_own(tracklet, tmp_path):
    recipe, path = load_recipe("synth_sta", ["eval.frames=3"]), tmp_path / "a.svg"
    model = model_that_attends(lambda clips: Own(tuple(clips.shape)))
    assert picture_attention(model, recipe, tracklet, path) is None
    with pytest.raises(TypeError, match="Own"):
        draw_attended(Own(()), None, path, "")

    @draw_attended.register
    def _(attended: Own, frames, path, title):
        path.write_text(f"{attended.shape} {tuple(frames.shape)} {title}")
        return path

    assert picture_attention(model, recipe, tracklet, path) == path
    assert path.read_text() == "(1, 3, 3, 64, 32) (3, 3, 32, 16) a tracklet"


def test_without_attention_there_is_no_picture(tracklet, tmp_path):
    path = tmp_path / "a.png"
    assert picture_attention(torch.nn.Identity(), load_recipe("synth_sta"), tracklet, path) is None
    model = model_that_attends(lambda clips: SimpleNamespace())
    assert picture_attention(model, load_recipe("synth_sta"), tracklet, path) is None
    assert not path.exists()


def test_each_stream_of_asta_is_drawn(tracklet, tmp_path):
    streams = {"relevant": torch.rand(1, 4, 4, 2), "irrelevant": torch.rand(1, 4, 4, 2)}
    model, recipe = model_that_attends(lambda clips: streams), load_recipe("synth_sta")
    drawn = picture_attention(model, recipe, tracklet, tmp_path / "a.svg").read_text()
    assert all(f"<!-- {name} -->" in drawn for name in ("frames", *streams))


@pytest.mark.parametrize("nothing", [{}, None])
def test_a_model_that_attends_to_nothing_has_no_picture(tracklet, tmp_path, nothing):
    recipe = load_recipe("synth_sta")
    assert (
        picture_attention(model_that_attends(lambda clips: nothing), recipe, tracklet, tmp_path / "b.svg")
        is None
    )


def test_sta_is_drawn(tracklet, tmp_path):
    model = build_model("sta", 2, backbone="resnet18", feature_dim=8)
    path = picture_attention(model, load_recipe("synth_sta"), tracklet, tmp_path / "a.png", frames=2)
    with Image.open(path) as image:
        assert image.width > 300


@pytest.mark.parametrize("joints", [None, torch.rand(5, 14, 3) * 16], ids=["standing", "joints"])
def test_stal_draws_the_parts_it_scored(tracklet, tmp_path, joints):
    model = build_model("stal", 2, backbone="resnet18", split="layer2", part_dim=4, roi_size=2)
    recipe = load_recipe("synth_stal")
    tracklet = replace(tracklet, joints=joints)
    drawn = picture_attention(model, recipe, tracklet, tmp_path / "a.svg", frames=3).read_text()
    assert "right arm" in drawn
    skeletons = drawn.count("stroke: #ffffff; stroke-width: 1.2")
    assert skeletons == 0 if joints is None else skeletons > 0


def test_stal_without_parts_has_no_picture(tracklet, tmp_path):
    model = build_model("stal", 2, backbone="resnet18", split="layer2", branches="global")
    assert picture_attention(model, load_recipe("synth_stal"), tracklet, tmp_path / "a.svg") is None
