"""A synthetic MARS: rendered walking people to train, test and demonstrate on without any download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .looks import draw_looks
from .scene import Camera, Person, Shot, place_camera
from .writer import Entry, MarsWriter, write_info

__all__ = ["synthesize"]

_JUNK, _DISTRACTOR = -1, 0
_STRANGERS = 12


def synthesize(
    out: str | Path,
    *,
    ids: int = 40,
    cameras: int = 4,
    tracklets: int = 2,
    frames: int = 16,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render walking people into `out` in the layout of MARS.

    Half of the people are for training (odd pids), half for testing (even pids). Each is filmed `tracklets`
    times by each of `cameras` cameras, which differ in viewpoint, colour cast, exposure, blur and background.
    People come in families of three that share their colours and differ in texture, cut and bags. The test
    split also holds junk (pid -1, badly cut boxes) and distractors (pid 0, strangers and false detections),
    in every camera one of each per four test people.

    ROOT/bbox_train/0001/0001C1T0001F001.jpg, ROOT/bbox_test/...    crops
    ROOT/info/train_name.txt, tracks_train_info.mat, test_name.txt, tracks_test_info.mat, query_IDX.mat
                               one query for every test person and camera
    ROOT/mars_attributes.csv   the published columns, real pids only
    ROOT/joints.json           {"joints": 14 names, "tracklets": {name: frames x 14 x [x, y, visible]}}:
                               pixels from the upper left corner; visible: in the crop and not covered
    ROOT/synth.json            the arguments; written last

    The same arguments give the same bytes with the same Pillow.

    Args:
        out: a directory that does not exist or is empty.
        ids: people, 4 to 9999.
        cameras: 2 to 9.
        tracklets: tracklets of each person in each camera.
        frames: frames of each tracklet, 1 to 999.
        size: (height, width) of a crop in pixels, at least (32, 16).
        seed: not negative.
        progress: called as `progress(tracklets_done, tracklets_in_all)`.

    Returns:
        `out` as a path.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range; nothing has been written.
        FileExistsError: ``out`` is a file or already holds something.
    """
    _check_number("ids", ids, 4, 9999)
    _check_number("cameras", cameras, 2, 9)
    _check_number("tracklets", tracklets, 1, 9999 // cameras)
    _check_number("frames", frames, 1, 999)
    _check_number("seed", seed, 0, 2**63 - 1)
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise TypeError(f"size: want (height, width), got {size!r}")
    _check_number("size[0] (height)", size[0], 32, 4096)
    _check_number("size[1] (width)", size[1], 16, 4096)
    root = Path(out)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"out: {root} already holds something; name a new or an empty directory")

    looks = draw_looks(np.random.default_rng([seed, 0]), ids)
    half = (ids + 1) // 2
    people = {2 * k + 1: Person(look) for k, look in enumerate(looks[:half])}
    people |= {2 * k + 2: Person(look) for k, look in enumerate(looks[half:])}
    strangers = [Person(look) for look in draw_looks(np.random.default_rng([seed, 1]), _STRANGERS, family=1)]
    places = [place_camera(np.random.default_rng([seed, 2, c]), c, cameras, size) for c in range(cameras)]
    plan = _plan(sorted(people), cameras, tracklets)

    root.mkdir(parents=True, exist_ok=True)
    writers = {split: MarsWriter(root, split) for split in ("train", "test")}
    for done, entry in enumerate(plan, start=1):
        target = people.get(entry.pid)
        shot = _shot(entry, places[entry.camid - 1], target, strangers, frames, size, seed)
        attributes = None if target is None else target.look.attributes()
        writers["train" if entry.pid % 2 == 1 and entry.pid > 0 else "test"].add(entry, shot, attributes)
        if progress is not None:
            progress(done, len(plan))
    write_info(root, writers["train"], writers["test"])
    settings = {
        "ids": ids,
        "cameras": cameras,
        "tracklets": tracklets,
        "frames": frames,
        "size": list(size),
        "seed": seed,
    }
    (root / "synth.json").write_text(json.dumps(settings) + "\n")
    return root


def _plan(pids: list[int], cameras: int, tracklets: int) -> list[Entry]:
    """All tracklets in MARS's order: junk, distractors, people; numbers run on across cameras."""
    extra = max(1, sum(pid % 2 == 0 for pid in pids) // 4) * cameras
    plan = [
        Entry(pid, camid, track)
        for pid in (_JUNK, _DISTRACTOR)
        for track, camid in enumerate(sorted(k % cameras + 1 for k in range(extra)), start=1)
    ]
    plan += [
        Entry(pid, camera + 1, camera * tracklets + k + 1)
        for pid in pids
        for camera in range(cameras)
        for k in range(tracklets)
    ]
    return plan


def _shot(
    entry: Entry,
    camera: Camera,
    target: Person | None,
    strangers: list[Person],
    frames: int,
    size: tuple[int, int],
    seed: int,
) -> Shot:
    # One generator per tracklet, so that a tracklet does not depend on how many others are rendered.
    rng = np.random.default_rng([seed, 3, entry.pid + 1, entry.camid, entry.track])
    if target is None and (entry.pid == _JUNK or rng.random() < 0.6):
        target = strangers[rng.integers(len(strangers))]
    return Shot(rng, camera, target, strangers, frames, size, spoiled=entry.pid == _JUNK)


def _check_number(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: want an integer, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: want {low} to {high}, got {value}")
