"""People in pictures: detect with OpenCV, link boxes of successive frames into tracks.

The detector is Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection" (CVPR 2005), the
linker greedy overlap with a constant velocity: not a state-of-the-art tracker, but it needs no weights.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vreid_ext.data.video.boxes import Box, Track

Boxes = NDArray[np.float64]

# The detector's window of 64 x 128 pixels shows a person some 95 high; enlarging finds smaller people.
_ENLARGE = 1.5
# The part of the window that the person fills (width, height); the rest is the margin it was trained with.
_PERSON = (0.52, 0.73)


class PeopleDetector:
    """OpenCV's HOG people detector, for upright people 62 pixels high or more.

    Called with a picture (H, W, 3) uint8 it returns boxes (N, 4), x y w h in pixels, the surest first, cut to
    the picture.
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
    """Merges the windows that a detector fires around one person into their weighted mean, the surest first.

    Windows that overlap a surer one by more than `min_iou` join it; a window that none joins is dropped,
    being mostly a false alarm. The order of the input does not matter: OpenCV's threads report in any.
    """
    order = np.lexsort((*windows.T, -weights))
    windows, weights = windows[order], weights[order]
    overlap = iou(windows, windows)
    merged, free = [], np.ones(len(windows), dtype=bool)
    for surest in range(len(windows)):
        group = free & (overlap[surest] > min_iou)
        if free[surest] and group.sum() > 1:
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
    """Links boxes of successive frames into tracks, greedily by overlap.

    A track's next box is expected where its mean velocity over its last `memory` steps takes it. Frame by
    frame, the pair (track, box) with the highest intersection over union is joined, then the next, down to
    `min_iou`; a box left over starts a track. A track that more than `max_gap` frames in a row have not
    continued is closed.

    The defaults are those that did best on one street scene (`docs/real_footage.md`).

    Args:
        detections: frame number -> boxes (N, 4), x y w h in pixels; (0, 4) for a frame without people.
        min_iou: least overlap of a box with the expected one, in (0, 1].
        max_gap: detected frames that may pass without a box.
        memory: steps over which the velocity is taken.
        times: of every frame; the frames' numbers, as of a video with a constant rate, unless given.

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
    """Intersection over union of boxes a (N, 4) and b (M, 4), x y w h, no empty one: (N, M) in [0, 1]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    both: NDArray[np.float64] = np.clip(high - low, 0, None).prod(-1)
    return both / (a[:, 2:].prod(-1)[:, None] + b[:, 2:].prod(-1) - both)


def _expect(times: list[float], boxes: list[Box], time: float) -> Boxes:
    """The last box, its centre moved on to `time` at the mean velocity of the boxes given."""
    first, last = np.array(boxes[0]), np.array(boxes[-1])
    expected = last.copy()
    if len(times) > 1:
        way = (last[:2] + last[2:] / 2) - (first[:2] + first[2:] / 2)
        expected[:2] += way * (time - times[-1]) / (times[-1] - times[0])
    return expected
