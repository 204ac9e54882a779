"""Identity switches of public trackers with and without the appearance features of an `Embedder`.

    python benchmarks/tracking.py track VIDEO --boxes det.txt --tracker botsort --run RUN --out with.txt
    python benchmarks/tracking.py track VIDEO --boxes det.txt --tracker botsort --out without.txt
    python benchmarks/tracking.py score gt.txt with.txt without.txt

VIDEO is a video file or a folder of images. The detections and the ground truth are MOT text; `labels` writes
a boxes file as MOT text. `track` needs boxmot (botsort, strongsort, deepocsort), or trackers 2.0.1 with
supervision 0.26 (deepsort); `score` needs trackers 2.6, whose evaluation it prints.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

import cv2
import numpy as np

Step = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # picture, boxes, scores -> x1 y1 x2 y2 id
DEPTH = 30  # frames for which a lost track is kept


def botsort(encoder) -> Step:
    from boxmot import BotSort

    options = {"use_embeddings": False} if encoder is None else {"reid_model": encoder}
    return boxmot_step(BotSort(use_cmc=False, track_buffer=DEPTH, **options))


def strongsort(encoder) -> Step:
    from boxmot import StrongSort

    return boxmot_step(StrongSort(reid_model=encoder or Constant(), max_age=DEPTH))


def deepocsort(encoder) -> Step:
    from boxmot import DeepOcSort

    options = {"use_embeddings": False} if encoder is None else {"reid_model": encoder}
    return boxmot_step(DeepOcSort(cmc_off=True, max_age=DEPTH, **options))


def boxmot_step(tracker) -> Step:
    def step(picture, boxes, scores):
        rows = np.column_stack([boxes, scores, np.zeros(len(boxes))]).astype(np.float32)
        return np.asarray(tracker.update(rows, picture)).reshape(-1, 8)[:, :5]

    return step


def deepsort(encoder) -> Step:
    import supervision as sv
    from trackers import DeepSORTTracker

    motion_only = {"appearance_weight": 0.0, "appearance_threshold": 1.0}
    tracker = DeepSORTTracker(
        encoder or Constant(), lost_track_buffer=DEPTH, minimum_consecutive_frames=1,
        **(motion_only if encoder is None else {}),
    )  # fmt: skip

    def step(picture, boxes, scores):
        found = tracker.update(sv.Detections(xyxy=boxes, confidence=scores), picture)
        ids = np.empty(0) if found.tracker_id is None else found.tracker_id
        kept = ids >= 0
        return np.column_stack([found.xyxy[kept], ids[kept]])

    return step


class Constant:
    """The encoder of a tracker that cannot do without one: all boxes look the same."""

    def get_features(self, boxes, image):
        return np.ones((len(boxes), 4), np.float32)

    def extract_features(self, frame, detections):
        return np.ones((len(detections), 4), np.float32)


TRACKERS = {each.__name__: each for each in (botsort, strongsort, deepocsort, deepsort)}


def pictures(video: Path) -> Iterator[np.ndarray]:
    if video.is_dir():
        yield from (cv2.imread(str(path)) for path in sorted(video.glob("*.jpg")))
        return
    capture = cv2.VideoCapture(str(video))
    while (read := capture.read())[0]:
        yield read[1]


def track(arguments: argparse.Namespace) -> None:
    rows = np.loadtxt(arguments.boxes, delimiter=",", ndmin=2)
    if rows.shape[1] > 6:
        rows = rows[rows[:, 6] >= arguments.score]
    encoder = None
    if arguments.run is not None:
        from vreid_ext import Embedder
        from vreid_ext.compat.trackers import TrackerEncoder

        encoder = TrackerEncoder(Embedder(arguments.run, "cpu"))
    step, lines = TRACKERS[arguments.tracker](encoder), []
    for number, picture in enumerate(pictures(arguments.video), start=1):
        if (number - 1) % arguments.every:
            continue
        here = rows[rows[:, 0] == number]
        boxes = np.concatenate([here[:, 2:4], here[:, 2:4] + here[:, 4:6]], 1)
        for x, y, right, bottom, identity in step(picture, boxes, np.full(len(boxes), 0.9)):
            box = ",".join(f"{value:.2f}" for value in (x, y, right - x, bottom - y))
            lines.append(f"{number},{int(identity)},{box},1,-1,-1,-1")
    arguments.out.write_text("\n".join(lines) + "\n")


def labels(arguments: argparse.Namespace) -> None:
    """Write the boxes of the persons in a boxes file as MOT text, at most one per person and frame."""
    from vreid_ext.data.video.boxes import read_boxes

    tracks = read_boxes(arguments.boxes)
    numbers = {name: n for n, name in enumerate(sorted({t.person or "" for t in tracks}), start=1)}
    boxes = {(f + 1, numbers[t.person or ""]): box for t in tracks for f, box in zip(t.frames, t.boxes)}
    lines = [",".join(map(str, (*key, *box))) + ",1,-1,-1,-1" for key, box in sorted(boxes.items())]
    arguments.out.write_text("\n".join(lines) + "\n")


def score(arguments: argparse.Namespace) -> None:
    from trackers.eval import evaluate_mot_sequence

    from vreid_ext.data.video.mot import read_mot

    # The evaluation counts pedestrians, class 1, only; ground truth of MOT15 has no classes.
    rows = [
        [f + 1, t.id, *box, 1, 1, 1]
        for t in read_mot(arguments.truth).tracks
        for f, box in zip(t.frames, t.boxes)
    ]
    with NamedTemporaryFile("w", suffix=".txt") as truth:
        truth.write("\n".join(",".join(map(str, row)) for row in sorted(rows)) + "\n")
        truth.flush()
        _score(evaluate_mot_sequence, truth.name, arguments.found)


def _score(evaluate: Callable, truth: str, files: list[Path]) -> None:
    for found in files:
        result = evaluate(truth, found, ["CLEAR", "HOTA", "Identity"])
        clear, identity, hota = result.CLEAR, result.Identity, result.HOTA
        print(
            f"{found.stem}: {clear.IDSW} switches, {len(set(np.loadtxt(found, delimiter=',')[:, 1]))} ids, "
            f"IDF1 {100 * identity.IDF1:.1f}, HOTA {100 * hota.HOTA:.1f}, MOTA {100 * clear.MOTA:.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("track")
    command.add_argument("video", type=Path)
    command.add_argument("--boxes", type=Path, required=True, help="detections as MOT text")
    command.add_argument("--score", type=float, default=-np.inf, help="least confidence of a detection")
    command.add_argument("--every", type=int, default=1, help="use every n-th frame")
    command.add_argument("--tracker", choices=TRACKERS, required=True)
    command.add_argument("--run", type=Path, help="a run; without it the tracker uses motion only")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(call=track)
    command = commands.add_parser("labels")
    command.add_argument("boxes", type=Path)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(call=labels)
    command = commands.add_parser("score")
    command.add_argument("truth", type=Path)
    command.add_argument("found", type=Path, nargs="+")
    command.set_defaults(call=score)
    arguments = parser.parse_args()
    arguments.call(arguments)


if __name__ == "__main__":
    main()
