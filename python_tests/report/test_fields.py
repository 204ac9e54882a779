import pytest
import torch
from PIL import Image

from vreid_ext.report import plot_receptive_fields


def test_receptive_fields_are_drawn_and_bad_ones_named(tmp_path):
    frames = torch.randint(0, 256, (5, 3, 64, 32), dtype=torch.uint8)
    weights = torch.rand(5, 3, 8, 4)
    path = plot_receptive_fields(frames, weights, tmp_path / "new" / "fields.png", title="person 7")
    with Image.open(path) as image:
        assert image.width > 300
        assert len(image.convert("RGB").getcolors(2**20)) > 500
    for bad, error, message in (
        ((frames.float(), weights), TypeError, "frames: expected .*got torch.float32"),
        ((frames[0], weights), ValueError, r"frames: expected .*got \(3, 64, 32\)"),
        ((frames, weights[:4]), ValueError, r"weights: expected .* T = 5, got \(4, 3, 8, 4\)"),
    ):
        with pytest.raises(error, match=message):
            plot_receptive_fields(*bad, tmp_path / "bad.png")
    assert not (tmp_path / "bad.png").exists()
