"""Synthetic data sets: rendered walking people in the layouts of MARS, iLIDS-VID and PRID2011.

They are used for training, tests and the demo, and require no download.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from vreid_ext._files import check_new_folder, new_folder
from vreid_ext.data.synth.looks import Look, draw_looks
from vreid_ext.data.synth.pairs import pair_folder, write_splits, write_tracklet
from vreid_ext.data.synth.scene import Camera, Person, Shot, place_camera
from vreid_ext.data.synth.writer import Entry, MarsWriter, write_info

__all__ = ["synthesize"]

Film = Callable[[Entry, Person | None], Shot]
Progress = Callable[[int, int], None] | None

_JUNK, _DISTRACTOR = -1, 0
_STRANGERS = 12


def synthesize(
    out: str | Path,
    *,
    layout: Literal["mars", "ilids", "prid"] = "mars",
    ids: int = 40,
    cameras: int | None = None,
    tracklets: int | None = None,
    frames: int | None = None,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
    progress: Progress = None,
) -> Path:
    """Render walking people into `out` in the layout of MARS, iLIDS-VID or PRID2011.

    MARS: half of the people are for training (odd pids), half for testing (even pids). Each of the `cameras`
    cameras films each person `tracklets` times. Cameras differ in viewpoint, color cast, exposure, blur and
    background. People are drawn in families of three with the same colors; the members of a family differ in
    the texture and cut of their clothes and in their bags. The test split also contains junk (pid -1, badly
    aligned boxes) and distractors (pid 0, other people and false detections): in every camera one of each for
    every four test people.

    ROOT/bbox_train/0001/0001C1T0001F001.jpg, ROOT/bbox_test/...    crops
    ROOT/info/train_name.txt, tracks_train_info.mat, test_name.txt, tracks_test_info.mat, query_IDX.mat
                               one query for every test person and camera
    ROOT/mars_attributes.csv   the published columns, for pids > 0 only
    ROOT/joints.json           {"joints": 14 names, "tracklets": {name: frames x 14 x [x, y, visible]}}:
                               pixels from the upper left corner; visible: 1 if in the crop and not occluded.
                               All tracklets except junk; zeros for false detections
    ROOT/synth.json            the arguments; written last

    iLIDS-VID and PRID2011: each of the two cameras films each person once; images are PNG. Ten random splits
    are written. In PRID2011 the last tenth of the people appears only in the first camera and in no split.

    ROOT/i-LIDS-VID/sequences/cam1/person001/cam1_person001_00001.png
    ROOT/train-test people splits/train_test_splits_ilidsvid.mat
    ROOT/prid_2011/multi_shot/cam_a/person_0001/00001.png
    ROOT/splits_prid2011.json

    With the same version of Pillow, the same arguments give identical files.

    Args:
        out: a directory that does not exist or is empty.
        layout: "mars", "ilids" or "prid".
        ids: number of people, 4 to 9999.
        cameras: number of cameras. MARS: 2 to 9, default 4. Others: always 2.
        tracklets: number of tracklets per person and camera. MARS: default 2. Others: always 1.
        frames: number of frames per tracklet, 1 to 999. MARS: default 16. Others: default 32, as the protocol
            of PRID2011 excludes people with fewer than 28.
        size: (height, width) of a crop in pixels, at least (32, 16).
        seed: random seed, at least 0.
        progress: called as `progress(tracklets_done, total_tracklets)`.

    Returns:
        `out` as a path.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range. Nothing is written in that
            case.
        FileExistsError: `out` is a file or a directory that is not empty.
    """
    if layout not in ("mars", "ilids", "prid"):
        raise ValueError(f"layout: expected 'mars', 'ilids' or 'prid', got {layout!r}")
    mars = layout == "mars"
    cameras = (4 if mars else 2) if cameras is None else cameras
    tracklets = (2 if mars else 1) if tracklets is None else tracklets
    frames = (16 if mars else 32) if frames is None else frames
    _check_number("ids", ids, 4, 9999)
    _check_number("cameras", cameras, 2, 9 if mars else 2)
    _check_number("tracklets", tracklets, 1, 9999 // cameras if mars else 1)
    _check_number("frames", frames, 1, 999)
    _check_number("seed", seed, 0, 2**63 - 1)
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise TypeError(f"size: expected (height, width), got {size!r}")
    _check_number("size[0] (height)", size[0], 32, 4096)
    _check_number("size[1] (width)", size[1], 16, 4096)
    root = Path(out)
    check_new_folder(root)

    settings = {
        "layout": layout,
        "ids": ids,
        "cameras": cameras,
        "tracklets": tracklets,
        "frames": frames,
        "size": list(size),
        "seed": seed,
    }
    placed = [place_camera(np.random.default_rng([seed, 2, c]), c, cameras, size) for c in range(cameras)]
    looks = draw_looks(np.random.default_rng([seed, 0]), ids)
    strangers = [Person(look) for look in draw_looks(np.random.default_rng([seed, 1]), _STRANGERS, family=1)]

    def film(entry: Entry, target: Person | None) -> Shot:
        return _shot(entry, placed[entry.camid - 1], target, strangers, frames, size, seed)

    with new_folder(root) as rendered:
        if layout == "mars":
            _render_mars(rendered, looks, cameras, tracklets, film, progress)
        else:
            _render_pairs(rendered, layout, looks, seed, film, progress)
        (rendered / "synth.json").write_text(json.dumps(settings) + "\n")
    return root


def _render_mars(
    root: Path, looks: list[Look], cameras: int, tracklets: int, film: Film, progress: Progress
) -> None:
    half = (len(looks) + 1) // 2
    people = {2 * k + 1: Person(look) for k, look in enumerate(looks[:half])}
    people |= {2 * k + 2: Person(look) for k, look in enumerate(looks[half:])}
    plan = _plan(sorted(people), cameras, tracklets)
    writers = {split: MarsWriter(root, split) for split in ("train", "test")}
    for done, entry in enumerate(plan, start=1):
        target = people.get(entry.pid)
        attributes = None if target is None else target.look.attributes()
        split = "train" if entry.pid % 2 == 1 and entry.pid > 0 else "test"
        writers[split].add(entry, film(entry, target), attributes)
        if progress is not None:
            progress(done, len(plan))
    write_info(root, writers["train"], writers["test"])


def _render_pairs(
    root: Path, layout: Literal["ilids", "prid"], looks: list[Look], seed: int, film: Film, progress: Progress
) -> None:
    people = {pid: Person(look) for pid, look in enumerate(looks, start=1)}
    both = list(people)[: len(people) - (max(1, len(people) // 10) if layout == "prid" else 0)]
    plan = [Entry(pid, camid, 1) for pid in people for camid in (1, 2) if camid == 1 or pid in both]
    for done, entry in enumerate(plan, start=1):
        write_tracklet(
            pair_folder(root, layout, entry.pid, entry.camid), layout, film(entry, people[entry.pid])
        )
        if progress is not None:
            progress(done, len(plan))
    write_splits(root, layout, both, seed)


def _plan(pids: list[int], cameras: int, tracklets: int) -> list[Entry]:
    """All tracklets in the order of MARS: junk, distractors, people.

    As in MARS, the tracklets of a pid are numbered consecutively over its cameras.
    """
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
    # One generator per tracklet, so that its content does not depend on the number of other tracklets.
    rng = np.random.default_rng([seed, 3, entry.pid + 1, entry.camid, entry.track])
    if target is None and (entry.pid == _JUNK or rng.random() < 0.6):
        target = strangers[rng.integers(len(strangers))]
    return Shot(rng, camera, target, strangers, frames, size, spoiled=entry.pid == _JUNK)


def _check_number(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {value}")
