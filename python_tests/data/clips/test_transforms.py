import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as F

from vreid_ext.data.clips import transforms

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in (transforms.IMAGENET_MEAN, transforms.IMAGENET_STD))


def clip(frames=4, height=32, width=16, seed=0):
    return torch.randint(
        256, (frames, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_normalisation_is_imagenets():
    x = clip()
    out = transforms.test_transform(32, 16)(x)
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    torch.testing.assert_close(out, (x / 255 - MEAN) / STD, atol=2e-6, rtol=0)


def test_input_is_left_alone():
    x = clip()
    before = x.clone()
    transforms.train_transform(32, 16, flip=1.0, crop=4, erase=1.0)(x)
    assert torch.equal(x, before)


def test_resize_is_antialiased_bilinear():
    x = clip(height=50, width=30)
    expected = (F.resize(x, [32, 16], antialias=True) / 255 - MEAN) / STD
    torch.testing.assert_close(transforms.test_transform(32, 16)(x), expected, atol=0.02, rtol=0)


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(0, 10), st.floats(0, 1))
def test_one_decision_for_all_frames(seed, flip, crop, erase):
    """A clip of four equal frames stays one: whatever is drawn is drawn once."""
    x = clip(frames=1, seed=seed).expand(4, -1, -1, -1)
    torch.manual_seed(seed)
    out = transforms.train_transform(32, 16, flip=flip, crop=crop, erase=erase)(x)
    assert out.shape == (4, 3, 32, 16)
    assert torch.equal(out, out[:1].expand_as(out))


def test_flip_mirrors_and_erase_sets_the_mean():
    x = clip()
    flipped = transforms.train_transform(32, 16, flip=1.0)(x)
    assert torch.equal(flipped, transforms.test_transform(32, 16)(x.flip(-1)))
    erased = transforms.train_transform(32, 16, flip=0.0, erase=1.0)(x)
    changed = erased != transforms.test_transform(32, 16)(x)
    assert 0.01 < changed.float().mean() < 0.4
    assert (erased[changed] == 0).all()


def test_crop_shifts_by_at_most_the_border():
    x = torch.zeros(1, 3, 32, 16, dtype=torch.uint8)
    x[..., 16, 8] = 255
    rows, columns = set(), set()
    step = transforms.train_transform(32, 16, flip=0.0, crop=3)
    for seed in range(200):
        torch.manual_seed(seed)
        _, _, row, column = step(x).gt(1).nonzero()[0].tolist()
        rows.add(row)
        columns.add(column)
    assert (rows, columns) == (set(range(13, 20)), set(range(5, 12)))


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"flip": 1.5}, ValueError, "flip"),
        ({"flip": True}, TypeError, "flip"),
        ({"erase": -0.1}, ValueError, "erase"),
        ({"erase": "often"}, TypeError, "erase"),
        ({"crop": -1}, ValueError, "crop"),
        ({"crop": True}, TypeError, "crop"),
        ({"height": 0}, ValueError, "height"),
        ({"width": 12.5}, TypeError, "width"),
    ],
)
def test_bad_argument_is_named(options, error, name):
    with pytest.raises(error, match=f"^{name}: expected"):
        transforms.train_transform(**{"height": 32, "width": 16, **options})


def test_per_frame_every_frame_has_decisions_of_its_own():
    x = clip(frames=1).expand(32, -1, -1, -1)
    torch.manual_seed(0)
    out = transforms.train_transform(32, 16, flip=0.5, crop=4, erase=0.5, per_frame=True)(x)
    assert out.shape == (32, 3, 32, 16)
    assert len(out.flatten(1).unique(dim=0)) > 24
    plain = transforms.test_transform(32, 16)(x[:1])
    torch.manual_seed(0)
    flipped = transforms.train_transform(32, 16, flip=0.5, per_frame=True)(x)
    kinds = [torch.equal(frame, plain[0]) for frame in flipped]
    assert {True, False} == set(kinds)
    assert all(
        same or torch.equal(frame.flip(-1), plain[0]) for same, frame in zip(kinds, flipped, strict=True)
    )


def test_per_frame_joints_move_with_their_frame():
    x, joints = clip(frames=16), torch.rand(16, 14, 3)
    torch.manual_seed(0)
    transform = transforms.train_transform(32, 16, flip=0.5, per_frame=True)
    out, moved = transform.with_joints(x, joints)
    plain = transforms.test_transform(32, 16)(x)
    for frame, before, after, still in zip(out, joints, moved, plain, strict=True):
        same = torch.equal(frame, still)
        torch.testing.assert_close(after, before if same else transforms.mirror_joints(before[None])[0])
