"""The encoder in the interfaces of trackers, and in the real packages where they are installed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vreid_ext.compat.trackers import TrackerEncoder


class Colors:
    """An embedder whose features are the mean colors, R, G and B, of the boxes."""

    dimensions = 3

    def __init__(self, color="rgb"):
        self.color = color

    def boxes(self, frame, boxes):
        rows = np.asarray(getattr(boxes, "xyxy", boxes)).reshape(-1, 4).astype(int)
        order = 1 if self.color == "rgb" else -1
        colors = [frame[y:v, x:u, ::order].mean((0, 1)) for x, y, u, v in rows]
        return torch.tensor(np.array(colors).reshape(-1, 3), dtype=torch.float32)


FRAME = np.zeros((60, 80, 3), np.uint8)
FRAME[:30, :, 0] = 200  # blue above, red below (BGR)
FRAME[30:, :, 2] = 100
BOXES = np.array([[0.0, 0, 10, 20], [5, 35, 20, 50]])
EXPECTED = np.array([[0, 0, 1], [1, 0, 0]], np.float32)  # blue, red as unit RGB


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_frames_are_bgr_whatever_the_color_of_the_embedder(color):
    encoder = TrackerEncoder(Colors(color))
    detections = SimpleNamespace(xyxy=BOXES)
    for rows in (
        encoder.get_features(BOXES, FRAME),
        encoder.extract_features(FRAME, detections),
        encoder.extract_embeddings(detections, FRAME),
    ):
        assert rows.dtype == np.float32
        assert np.array_equal(rows, EXPECTED)
    assert encoder.get_features(np.empty((0, 4)), FRAME).shape == (0, 3)
    assert encoder.embedding_dim == 3
    rgb = SimpleNamespace(image=torch.from_numpy(FRAME[..., ::-1].copy()).permute(2, 0, 1))
    boxes = SimpleNamespace(geometry=SimpleNamespace(values=torch.from_numpy(BOXES)))
    none = SimpleNamespace(geometry=SimpleNamespace(values=torch.empty(0, 4)))
    (rows, empty) = encoder.encode([rgb, rgb], [boxes, none])
    assert np.array_equal(rows.numpy(), EXPECTED)
    assert empty.shape == (0, 3)


def test_bad_input_of_encode():
    encoder = TrackerEncoder(Colors())
    with pytest.raises(ValueError, match=r"^detections: expected one entry for each of 1 frames, got 0"):
        encoder.encode([None], [])
    oriented = SimpleNamespace(geometry=SimpleNamespace(values=torch.zeros(1, 5)))
    with pytest.raises(ValueError, match=r"^detections: expected axis-aligned boxes .* got 5"):
        encoder.encode([None], [oriented])


BLUE, RED = (255, 0, 0), (0, 0, 255)


def scene(places, colors):
    """A picture (BGR) with persons 40 pixels wide at these places, and their boxes."""
    frame = np.full((200, 400, 3), 128, np.uint8)
    for x, color in zip(places, colors, strict=True):
        frame[50:150, x : x + 40] = color
    return frame, np.array([[x, 50.0, x + 40, 150] for x in places]).reshape(-1, 4)


class Alike:
    """An encoder to which all boxes look the same."""

    def get_features(self, boxes, image):
        return np.ones((len(boxes), 3), np.float32)

    def extract_features(self, frame, detections):
        return self.get_features(detections, frame)


@pytest.mark.parametrize("encoder", [TrackerEncoder(Colors()), Alike()])
def test_boxmot(encoder):
    """The blue person leaves; later a red one appears on one side and the blue one on the other."""
    boxmot = pytest.importorskip("boxmot")
    from boxmot.reid import AppearanceEncoder

    assert isinstance(TrackerEncoder(Colors()), AppearanceEncoder)
    tracker = boxmot.BotSort(reid_model=encoder, use_cmc=False, proximity_thresh=1.0)
    scenes = [scene([100], [BLUE])] * 5 + [scene([], [])] * 3 + [scene([160, 10], [RED, BLUE])] * 5
    found = []
    for frame, boxes in scenes:
        rows = np.column_stack([boxes, np.full(len(boxes), 0.9), np.zeros(len(boxes))])
        found.append([int(row[4]) for row in sorted(tracker.update(rows, frame).tolist())])
    ((first,), (left, right)) = found[4], found[-1]
    assert left != right
    if isinstance(encoder, TrackerEncoder):
        assert left == first


@pytest.mark.parametrize("encoder", [TrackerEncoder(Colors()), Alike()])
def test_trackers_2_0(encoder):
    """Two persons who overlap change places between two frames."""
    trackers = pytest.importorskip("trackers")
    if not hasattr(trackers, "DeepSORTTracker"):
        pytest.skip("DeepSORTTracker is in trackers before 2.1")
    sv = pytest.importorskip("supervision")
    tracker = trackers.DeepSORTTracker(encoder, minimum_consecutive_frames=1)
    found = []
    for colors in [(BLUE, RED)] * 5 + [(RED, BLUE)] * 5:
        frame, boxes = scene([100, 120], colors)
        frame[:, 120:140] = 0  # where they overlap
        tracked = tracker.update(sv.Detections(xyxy=boxes, confidence=np.full(2, 0.9)), frame)
        found.append(dict(zip(tracked.xyxy[:, 0].astype(int).tolist(), tracked.tracker_id.tolist())))
    changed = isinstance(encoder, TrackerEncoder)
    assert found[-1] == ({100: found[4][120], 120: found[4][100]} if changed else found[4])
