"""AG-VPReID (Nguyen et al., CVPR 2025): people seen by drones, CCTV and wearable cameras.

Published layout (challenge of 2025, https://github.com/agvpreid25/AG-VPReID):

    ROOT/train/0001/TRACKLET/...C4E...F001.jpg                            person / tracklet / camera, frame
    ROOT/case1_aerial_to_ground/{query,gallery}/0001/TRACKLET/...
    ROOT/case2_ground_to_aerial/{query,gallery}/0001/TRACKLET/...

Cameras 0 and 1 are CCTV, 2 and 3 wearable, 4 and 5 on drones.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from vreid_ext.data.readers.files import Check, OnError, Screen, find_root
from vreid_ext.data.records import DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

_FOLDERS = {
    "aerial_to_ground": "case1_aerial_to_ground",
    "ground_to_aerial": "case2_ground_to_aerial",
}
_CAMERA = re.compile(r"C(\d+)(?!\d)")
_FIRST_AERIAL = 4


@register_dataset("ag_vpreid")
def ag_vpreid(
    root: str | os.PathLike[str],
    *,
    direction: Literal["aerial_to_ground", "ground_to_aerial"] = "aerial_to_ground",
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read AG-VPReID. The two directions of the search are separate evaluations.

    The camera is the number after the first C in the name of an image, as in the authors' code. Every
    tracklet has the tag "aerial", 1 for a drone. The test folders of the challenge do not have the original
    person numbers; the authors offer a version that has them. Their code reads no clothes and no altitudes.

    Args:
        root: folder with the layout above.
        direction: queries from drones and gallery from the ground, or the reverse. Published tables have one
            column for each.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: a folder is missing, empty or has an unexpected name. The message names it.
        ValueError: an invalid option.
    """
    if direction not in _FOLDERS:
        raise ValueError(f"direction: expected one of {', '.join(_FOLDERS)}, got {direction!r}")
    screen = Screen(check, on_error)
    case = _FOLDERS[direction]
    folders = ["train", f"{case}/query", f"{case}/gallery"]
    base = find_root(root, f"train/, {case}/query/ and {case}/gallery/ of AG-VPReID", folders)
    train, query, gallery = (_split(base, folder, screen) for folder in folders)
    return TrackletDataset(
        name="ag_vpreid",
        root=os.fspath(root),
        train=train,
        query=query,
        gallery=gallery,
        protocol=f"AG-VPReID, {direction.replace('_', ' ')}, its own query and gallery",
        skipped=screen.finish(),
        ignored=screen.ignored,
    )


def _split(base: Path, split: str, screen: Screen) -> list[Tracklet]:
    tracklets = []
    for person in screen.folders(base / split, "folders of persons"):
        if not person.isdecimal():
            raise DatasetError(f"{base / split}: expected person folders like 0001, got {person!r}")
        for number in screen.folders(base / split / person, "folders of tracklets"):
            name = f"{split}/{person}/{number}"
            paths = screen.frames(base / name, name)
            cameras = {
                match[1] if match else "" for match in map(_CAMERA.search, map(os.path.basename, paths))
            }
            if len(cameras) == 1 and "" not in cameras:
                camid = int(cameras.pop())
                tags = {"aerial": int(camid >= _FIRST_AERIAL)}
                tracklets.append(Tracklet(paths, int(person), camid, name, tags=tags))
            elif paths:
                screen.reject(name, f"{base / name}: expected images of one camera with names like ...C4E...")
    return screen.keep(tracklets)
