"""Detection of people with OpenCV, and linking of the boxes of successive frames into tracks.

Detector: Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection" (CVPR 2005). Linking:
greedy matching by overlap with a constant velocity model. Neither is state of the art, but neither needs
weights.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vreid_ext.data.video.boxes import Box, Track

Boxes = NDArray[np.float64]

# The detector's window has 64 x 128 pixels, in which a person is about 95 pixels high. Enlarging the frame
# detects smaller people.
_ENLARGE = 1.5
# Fraction of the window (width, height) that the person fills. The detector was trained with a margin.
_PERSON = (0.52, 0.73)


class PeopleDetector:
    """OpenCV's HOG people detector, for upright people with a height of at least 62 pixels.

    Input: a frame (H, W, 3) uint8 BGR. Output: boxes (N, 4), x y w h in pixels, sorted by descending score
    and clipped to the frame.
    """

    def __init__(self, cv2: ModuleType) -> None:
        self._cv2 = cv2
        self._hog: Any = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    def __call__(self, picture: NDArray[np.uint8]) -> Boxes:
        height, width = picture.shape[:2]
        large = self._cv2.resize(picture, None, fx=_ENLARGE, fy=_ENLARGE)
        if large.shape[0] < 128 or large.shape[1] < 64:
            return np.empty((0, 4))
        found, weights = self._hog.detectMultiScale(
            large, winStride=(8, 8), padding=(8, 8), scale=1.05, groupThreshold=0
        )
        windows = group_windows(np.reshape(found, (-1, 4)) / _ENLARGE, np.ravel(weights))
        middle = windows[:, :2] + windows[:, 2:] / 2
        half = windows[:, 2:] * _PERSON / 2
        low = np.clip(middle - half, 0, (width, height))
        high = np.clip(middle + half, 0, (width, height))
        boxes = np.round(np.concatenate([low, high - low], axis=1), 1)
        return boxes[(boxes[:, 2:] >= 1).all(1)]


def group_windows(windows: Boxes, weights: NDArray[np.float64], *, min_iou: float = 0.4) -> Boxes:
    """Merge the windows that a detector reports around one person into their weighted mean.

    Each window joins the window with the highest score among those with an IoU above `min_iou`. Single
    windows are dropped, because most are false positives. The result is sorted by descending score and does
    not depend on the order of the input, which varies with the timing of OpenCV's threads.
    """
    order = np.lexsort((*windows.T, -weights))
    windows, weights = windows[order], weights[order]
    overlap = iou(windows, windows)
    merged, free = [], np.ones(len(windows), dtype=bool)
    for best in range(len(windows)):
        group = free & (overlap[best] > min_iou)
        if free[best] and group.sum() > 1:
            merged.append(np.average(windows[group], axis=0, weights=weights[group]))
            free &= ~group
    return np.array(merged).reshape(-1, 4)


def link_boxes(
    detections: Mapping[int, Boxes],
    *,
    min_iou: float = 0.4,
    max_gap: int = 3,
    memory: int = 4,
    times: Mapping[int, float] | None = None,
) -> list[Track]:
    """Link boxes of successive frames into tracks, greedily by overlap.

    The next box of a track is predicted from its mean velocity over its last `memory` steps. In each frame,
    tracks and boxes are matched in descending order of the intersection over union of predicted box and box,
    down to `min_iou`. Each box without a match starts a new track. A track ends after more than `max_gap`
    frames in a row without a match.

    The defaults performed best on one street scene (`docs/real_footage.md`).

    Args:
        detections: frame number -> boxes (N, 4), x y w h in pixels; (0, 4) for a frame without people.
        min_iou: minimum intersection over union of a box and the predicted box, in (0, 1].
        max_gap: number of frames in `detections` that a track may miss in a row.
        memory: number of steps over which the velocity is averaged.
        times: time of each frame; None: use the frame numbers, which assumes a constant frame rate.

    Returns:
        Tracks in order of their first box, numbered from 0.
    """
    frames: list[list[int]] = []
    boxes: list[list[Box]] = []
    time_of = float if times is None else times.__getitem__
    last_seen: dict[int, int] = {}  # open track -> position of its last frame
    for position, (frame, found) in enumerate(sorted(detections.items())):
        last_seen = {t: p for t, p in last_seen.items() if position - p <= max_gap + 1}
        candidates = list(last_seen)
        expected = [
            _expect([*map(time_of, frames[t][-memory - 1 :])], boxes[t][-memory - 1 :], time_of(frame))
            for t in candidates
        ]
        overlap = iou(np.array(expected).reshape(-1, 4), found)
        owner: dict[int, int] = {}
        for flat in np.argsort(-overlap, axis=None, kind="stable"):
            row, column = divmod(int(flat), len(found))
            if overlap[row, column] < min_iou:
                break
            if column not in owner and candidates[row] not in owner.values():
                owner[column] = candidates[row]
        for column, (x, y, w, h) in enumerate(found.tolist()):
            if column not in owner:
                owner[column] = len(frames)
                frames.append([])
                boxes.append([])
            frames[owner[column]].append(frame)
            boxes[owner[column]].append((x, y, w, h))
            last_seen[owner[column]] = position
    return [Track(i, tuple(f), tuple(b)) for i, (f, b) in enumerate(zip(frames, boxes))]


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union (N, M) in [0, 1] of boxes a (N, 4) and b (M, 4), x y w h with w, h > 0."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    both: NDArray[np.float64] = np.clip(high - low, 0, None).prod(-1)
    return both / (a[:, 2:].prod(-1)[:, None] + b[:, 2:].prod(-1) - both)


def _expect(times: list[float], boxes: list[Box], time: float) -> Boxes:
    """Predicted box at `time`: the last box, moved with the mean velocity of the centers of `boxes`."""
    first, last = np.array(boxes[0]), np.array(boxes[-1])
    expected = last.copy()
    if len(times) > 1:
        displacement = (last[:2] + last[2:] / 2) - (first[:2] + first[2:] / 2)
        expected[:2] += displacement * (time - times[-1]) / (times[-1] - times[0])
    return expected
