"""DukeMTMC-VideoReID (Wu et al., CVPR 2018): 702 + 702 people, 408 distractors, 4,832 tracklets, 8 cameras.

Published layout:

    ROOT/{train,query,gallery}/0001/0001/0001_C6_F0099_X30823.jpg   person / tracklet / person, camera, frame
    ROOT/{train,query,gallery}/0001/0001/0001C6F0099X30823.jpg      same, in the older naming scheme
    ROOT/duke_attributes.csv or ROOT/info/duke_attributes.csv       optional
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from vreid_ext.data.readers.attributes import find_attributes
from vreid_ext.data.readers.files import Check, OnError, Screen, find_root
from vreid_ext.data.records import SPLITS, DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

# The names of distractors contain a D.
_PERSON = re.compile(r"D?(\d{0,9})D?")
_IMAGE = re.compile(r"D?(\d{0,9})D?_?C(\d{1,9})_?F(\d+)_?X\d+(_?D)?\.\w+", re.IGNORECASE)


@register_dataset("dukev")
def dukev(
    root: str | os.PathLike[str],
    *,
    attributes: str | os.PathLike[str] | None = None,
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read DukeMTMC-VideoReID. A tracklet is all images of its folder, in ascending order of frame number.

    Args:
        root: folder with the layout above.
        attributes: attribute table (`read_attributes`); None: `duke_attributes.csv` if it exists.
        check: see `build_dataset`.
        on_error: see `build_dataset`.

    Raises:
        DatasetError: a folder or file is missing, empty or has an unexpected name. The message names it.
        ValueError: an invalid option.
    """
    screen = Screen(check, on_error)
    base = find_root(root, "train/, query/ and gallery/ of DukeMTMC-VideoReID", SPLITS)
    labels = find_attributes(base, attributes, "duke_attributes.csv", "dukev")
    for name in screen.look(base).folders:
        if name not in SPLITS:
            screen.ignore("folders other than train, query and gallery", os.fspath(base / name))
    return TrackletDataset(
        name="dukev",
        root=os.fspath(root),
        train=_split(base / "train", labels, screen),
        query=_split(base / "query", labels, screen),
        gallery=_split(base / "gallery", labels, screen),
        protocol="DukeMTMC-VideoReID, its own query and gallery",
        skipped=screen.finish(),
        ignored=screen.ignored,
    )


def _split(
    folder: Path, labels: dict[tuple[int, int, int], dict[str, int]], screen: Screen
) -> list[Tracklet]:
    tracklets = []
    for person in screen.folders(folder, "folders of persons"):
        match = _PERSON.fullmatch(person)
        if match is None:
            raise DatasetError(
                f"{folder}: expected person folders like 0001, got {person!r}; remove it from the data set"
            )
        for number in screen.folders(folder / person, "folders of tracklets"):
            path = folder / person / number
            name = f"{folder.name}/{person}/{number}"
            try:
                tracklets.append(_tracklet(path, screen.images(path), name, int(match[1] or 0), labels))
            except DatasetError as error:
                screen.reject(name, str(error))
    return screen.keep(tracklets)


def _tracklet(
    path: Path, images: list[str], name: str, pid: int, labels: dict[tuple[int, int, int], dict[str, int]]
) -> Tracklet:
    frames = []
    cameras = set()
    for image in images:
        match = _IMAGE.fullmatch(image)
        if match is None:
            raise DatasetError(
                f"{path}: expected image names like 0001_C6_F0099_X30823.jpg or 0001C6F0099X30823.jpg, "
                f"got {image!r}"
            )
        if match[1] and int(match[1]) != pid:
            raise DatasetError(f"{path}: expected images of person {pid}, got {image!r}")
        frames.append((int(match[3]), os.fspath(path / image)))
        cameras.add(int(match[2]))
    if not frames:
        raise DatasetError(f"{path}: expected at least one image, got an empty folder")
    if len(cameras) > 1:
        raise DatasetError(f"{path}: expected images of one camera, got cameras {sorted(cameras)}")
    camid = cameras.pop()
    key = (pid, camid, int(path.name)) if path.name.isdigit() else None
    return Tracklet(
        paths=tuple(image for _, image in sorted(frames)),
        pid=pid,
        camid=camid,
        name=name,
        attributes=labels.get(key) if key else None,
    )
