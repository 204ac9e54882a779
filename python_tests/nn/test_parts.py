import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext.data import JOINTS
from vreid_ext.nn import part_boxes, pool_parts, standing_boxes
from vreid_ext.nn.parts import PART_JOINTS, PART_NAMES


def person():
    """A person who stands with arms and legs spread, all joints known; (14,3)."""
    xy = {
        "head": (0.5, 0.05), "neck": (0.5, 0.2),
        "right_shoulder": (0.35, 0.22), "right_elbow": (0.2, 0.35), "right_wrist": (0.1, 0.5),
        "left_shoulder": (0.65, 0.22), "left_elbow": (0.8, 0.35), "left_wrist": (0.9, 0.5),
        "left_hip": (0.6, 0.5), "left_knee": (0.65, 0.7), "left_ankle": (0.75, 0.95),
        "right_hip": (0.4, 0.5), "right_knee": (0.35, 0.7), "right_ankle": (0.25, 0.95),
    }  # fmt: skip
    return torch.tensor([(*xy[name], 1.0) for name in JOINTS])


def test_boxes_are_equation_7():
    joints = person()
    boxes = part_boxes(joints)
    torch.testing.assert_close(boxes[0], torch.tensor([0.35, 0.05, 0.65, 0.22]))  # head
    torch.testing.assert_close(boxes[1], torch.tensor([0.35, 0.2, 0.65, 0.5]))  # torso
    torch.testing.assert_close(boxes[2], torch.tensor([0.1, 0.22, 0.35, 0.5]))  # right arm
    torch.testing.assert_close(boxes[5], torch.tensor([0.6, 0.5, 0.75, 0.95]))  # left leg
    for part, names in zip(PART_NAMES, PART_JOINTS, strict=True):
        side = part.split()[0]
        if side in ("left", "right"):
            assert all(JOINTS[index].startswith(side) for index in names)


def test_margin_and_least_size():
    joints = person()
    joints[[2, 3, 4], 0] = 0.02  # an arm that hangs straight down at the border
    box = part_boxes(joints, min_size=0.1)[2]
    torch.testing.assert_close(box, torch.tensor([0.0, 0.22, 0.1, 0.5]))
    torch.testing.assert_close(part_boxes(person(), margin=0.02)[1], torch.tensor([0.33, 0.18, 0.67, 0.52]))


@pytest.mark.parametrize(
    "bad", [(0.5, 0.5, 0.1), (1.2, 0.5, 1.0), (-3.0, 0.5, 1.0), (float("nan"), 0.5, 1.0)]
)
def test_unknown_joints_do_not_count(bad):
    joints = person()
    joints[4] = torch.tensor(bad)  # right wrist
    torch.testing.assert_close(part_boxes(joints)[2], torch.tensor([0.2, 0.22, 0.35, 0.35]))


def test_a_part_without_joints_gets_its_standing_place():
    joints = person()
    joints[[11, 12, 13], 2] = 0
    boxes = part_boxes(joints)
    torch.testing.assert_close(boxes[4], standing_boxes(boxes)[4])
    assert not torch.equal(boxes[5], standing_boxes(boxes)[5])
    nobody = part_boxes(torch.full((2, 3, 14, 3), float("nan")))
    torch.testing.assert_close(nobody, standing_boxes(nobody).expand(2, 3, 6, 4))


@given(st.integers(0, 1000), st.floats(0.02, 1), st.floats(0, 0.3))
@settings(max_examples=60)
def test_boxes_lie_in_the_frame_and_have_their_size(seed, min_size, margin):
    generator = torch.Generator().manual_seed(seed)
    joints = 1.4 * torch.rand(5, 14, 3, generator=generator) - 0.2
    boxes = part_boxes(joints, min_size=min_size, margin=margin)
    assert boxes.shape == (5, 6, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[..., 2:] - boxes[..., :2] >= min_size - 1e-5).all()


def test_pooling_of_a_whole_frame_keeps_the_map():
    maps = torch.randn(2, 5, 8, 8)
    whole = torch.tensor([0.0, 0, 1, 1]).expand(2, 3, 4)
    pooled = pool_parts(maps, whole, 8)
    assert pooled.shape == (2, 3, 5, 8, 8)
    assert torch.equal(pooled, maps[:, None].expand(2, 3, 5, 8, 8))


@pytest.mark.parametrize("how", ["pool", "align"])
def test_pooling_reads_its_box_alone(how):
    maps = torch.zeros(1, 1, 16, 16, requires_grad=True)
    box = torch.tensor([[[0.25, 0.5, 0.75, 1.0]]])
    pool_parts(maps + torch.rand(16, 16), box, 4, how=how).sum().backward()
    read = maps.grad[0, 0] != 0
    assert read[8:16, 4:12].any()
    read[7:16, 3:13] = False
    assert not read.any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: part_boxes([1]), TypeError, "joints: expected .*got list"),
        (
            lambda: part_boxes(torch.zeros(13, 3)),
            ValueError,
            r"joints: expected shape \(...,14,3\), got \(13, 3\)",
        ),
        (lambda: part_boxes(torch.zeros(14, 3).int()), TypeError, "joints: expected .*got torch.int32"),
        (
            lambda: part_boxes(torch.zeros(14, 3), margin=-1),
            ValueError,
            "margin: expected a finite number >= 0, got -1",
        ),
        (lambda: part_boxes(torch.zeros(14, 3), min_size=0), ValueError, "min_size: expected .*got 0"),
        (lambda: pool_parts(torch.zeros(2, 3, 4), torch.zeros(2, 6, 4)), ValueError, "maps: expected shape"),
        (
            lambda: pool_parts(torch.zeros(2, 3, 4, 4), torch.zeros(1, 6, 4)),
            ValueError,
            "boxes: expected shape",
        ),
        (
            lambda: pool_parts(torch.zeros(1, 3, 4, 4), torch.zeros(1, 6, 4), how="max"),
            ValueError,
            "how: expected",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
