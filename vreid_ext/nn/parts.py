"""Body parts from joints (Chen et al., "Spatial-Temporal Attention-aware Learning", TIP 2019).

Boxes are (x1, y1, x2, y2) as fractions of the frame's width and height. They apply equally to the image, the
network input and every feature map.
"""

import torch
from torch import Tensor

from vreid_ext import _checks

PART_NAMES = ("head", "torso", "right arm", "left arm", "right leg", "left leg")

# Joints J of each part (P_1 to P_6 of the paper), as indices from 0 in the order of `data.JOINTS`.
PART_JOINTS = ((0, 1, 2, 5), (1, 2, 5, 8, 11), (2, 3, 4), (5, 6, 7), (11, 12, 13), (8, 9, 10))

# Approximate boxes for an upright person in front view who fills the crop; the fallback for missing joints.
STANDING = (
    (0.25, 0.02, 0.75, 0.22),
    (0.25, 0.16, 0.75, 0.52),
    (0.10, 0.18, 0.40, 0.54),
    (0.60, 0.18, 0.90, 0.54),
    (0.22, 0.48, 0.52, 0.96),
    (0.48, 0.48, 0.78, 0.96),
)


def standing_boxes(like: Tensor) -> Tensor:
    """The boxes `STANDING` as a (6,4) float32 tensor on the device of `like`."""
    if not isinstance(like, Tensor):
        raise TypeError(f"like: expected a tensor, got {type(like).__name__}")
    return torch.tensor(STANDING, dtype=torch.float32, device=like.device)


def part_boxes(
    joints: Tensor, *, min_confidence: float = 0.3, margin: float = 0.0, min_size: float = 0.1
) -> Tensor:
    """Boxes of the six body parts (STAL, Eq. 7).

        p^r = (min x(J), min y(J), max x(J), max y(J))  over the known joints J of part r

    A joint is known if its confidence is at least `min_confidence` and it lies in the frame. A part without a
    known joint gets its box of `STANDING`. A box with a side shorter than `min_size`, e.g. of an arm that
    hangs straight down, is enlarged about its center and, if it then extends beyond the frame, shifted back.

    Args:
        joints: (...,14,3) x and y as fractions of the frame's width and height, and confidence, in the order
            of `data.JOINTS`; NaN for missing joints.
        min_confidence: see above.
        margin: added on every side, as a fraction of the frame; 0 in the paper.
        min_size: minimum width and height, as a fraction of the frame; in (0, 1].

    Returns:
        (...,6,4) float32 x1, y1, x2, y2 in [0, 1], with x1 < x2 and y1 < y2, in the order of `PART_NAMES`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """
    if not isinstance(joints, Tensor) or not joints.is_floating_point():
        got = joints.dtype if isinstance(joints, Tensor) else type(joints).__name__
        raise TypeError(f"joints: expected a floating-point tensor (...,14,3), got {got}")
    if joints.dim() < 2 or joints.shape[-2:] != (14, 3):
        raise ValueError(f"joints: expected shape (...,14,3), got {tuple(joints.shape)}")
    min_confidence = _checks.real("min_confidence", min_confidence)
    margin = _checks.real("margin", margin, 0)
    min_size = _checks.real("min_size", min_size, 0, 1)
    if not min_size:
        raise ValueError(f"min_size: expected a fraction of the frame in (0, 1], got {min_size}")
    joints = joints.float()
    xy, known = joints[..., :2], known_joints(joints, min_confidence)
    boxes = []
    for part in PART_JOINTS:
        index = list(part)
        mask = known[..., index, None]
        low = torch.where(mask, xy[..., index, :], torch.inf).amin(-2) - margin
        high = torch.where(mask, xy[..., index, :], -torch.inf).amax(-2) + margin
        boxes.append(torch.cat([low, high], -1))
    box = torch.stack(boxes, -2)
    box = torch.where(box.isfinite(), box, standing_boxes(box))
    low, high = box[..., :2], box[..., 2:]
    half = ((high - low) / 2).clamp(min_size / 2, 0.5)
    centre = torch.maximum(torch.minimum((low + high) / 2, 1 - half), half)
    return torch.cat([centre - half, centre + half], -1).clamp(0, 1)


def known_joints(joints: Tensor, min_confidence: float = 0.3) -> Tensor:
    """(...,14) bool mask of the joints (...,14,3) with sufficient confidence that lie in the frame."""
    xy, confidence = joints[..., :2], joints[..., 2]
    return (confidence >= min_confidence) & ((xy >= 0) & (xy <= 1)).all(-1)


def pool_parts(maps: Tensor, boxes: Tensor, size: int = 8, *, how: str = "pool") -> Tensor:
    """Feature maps of the parts, resampled to a common size.

    Args:
        maps: (N,C,H,W).
        boxes: (N,R,4) x1, y1, x2, y2 as fractions of the frame, as returned by `part_boxes`.
        size: height and width of a part's map.
        how: "pool" for ROI max pooling as in the paper, with boxes rounded to cells; "align" for ROI align
            with interpolation (He et al., ICCV 2017).

    Returns:
        (N,R,C,size,size), differentiable in `maps`.

    Raises:
        ImportError: torchvision is missing.
        ValueError: an argument has the wrong type or value.
    """
    _checks.floating("maps", maps, "(N,C,H,W)")
    _checks.floating("boxes", boxes, "(N,R,4)")
    size = _checks.integer("size", size, 1)
    _checks.choice("how", how, ("pool", "align"))
    if boxes.shape[2] != 4 or boxes.shape[0] != maps.shape[0]:
        raise ValueError(f"boxes: expected shape (N,R,4) with N = {maps.shape[0]}, got {tuple(boxes.shape)}")
    try:
        from torchvision import ops
    except ImportError as error:
        raise ImportError("ROI pooling needs torchvision: pip install 'vreid-ext[train]'") from error
    height, width = maps.shape[2:]
    regions = boxes.to(maps.dtype) * boxes.new_tensor([width, height, width, height], dtype=maps.dtype)
    if how == "pool":  # roi_pool includes the last cell of a box
        regions = regions - regions.new_tensor([0, 0, 1, 1])
    frame = torch.arange(maps.shape[0], device=maps.device, dtype=maps.dtype).repeat_interleave(
        boxes.shape[1]
    )
    rois = torch.cat([frame[:, None], regions.flatten(0, 1)], 1)
    if how == "align":
        pooled = ops.roi_align(maps, rois, size, aligned=True)
    else:
        pooled = ops.roi_pool(maps, rois, size)
    return pooled.unflatten(0, boxes.shape[:2])
