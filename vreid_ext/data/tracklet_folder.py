"""One's own tracklets in plain folders.

    ROOT/{train,query,gallery}/<person>/<camera>/<tracklet>/*.jpg     with the three splits, or
    ROOT/<person>/<camera>/<tracklet>/*.jpg                           without

The level <camera> may be left out: ROOT/train/<person>/<tracklet>/*.jpg. Images are taken in the order of their
names, so numbers in them need leading zeros. Hidden files and files that are no images are ignored.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .files import Check, OnError, Screen, find_root, list_folder
from .records import DatasetError, Tracklet, TrackletDataset
from .registry import register_dataset

_SPLITS = ("train", "query", "gallery")
_LAYOUT = "train/, query/ and gallery/, or one folder per person: ROOT/<person>/<camera>/<tracklet>/*.jpg"


@dataclasses.dataclass(frozen=True)
class _Found:
    person: str
    camera: str | None
    name: str
    paths: tuple[str, ...]


@register_dataset("tracklet_folder")
def tracklet_folder(
    root: str | os.PathLike[str],
    *,
    split: float | None = None,
    seed: int = 0,
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Reads the layout above from `root`.

    split: for a root without splits. None: train, query and gallery are all tracklets. A fraction in (0, 1): that
        share of the people, drawn with `seed`, is for training; query and gallery are all tracklets of the others.
    check, on_error: see `build_dataset`.

    pid: the number that is the person's folder name if all are numbers, else 1, 2, ... in the order of the names;
    the same person has the same pid in every split. camid: the number at the end of the camera's folder name (cam1) if
    every one has a number of its own, else 1, 2, ... in the order of the names. Without cameras, or with a single one,
    each tracklet counts as a camera of its own, so that the rule "ignore the query's person and camera" leaves out
    nothing but the query itself.

    Raises DatasetError naming the folder that is missing, empty or of another layout; ValueError for bad options.
    """
    screen = Screen(check, on_error)
    base = find_root(root, _LAYOUT)
    present = [name for name in _SPLITS if (base / name).is_dir()]
    if present:
        find_root(root, _LAYOUT, _SPLITS)
        if split is not None:
            raise ValueError(f"split: got {split}, but {base} has its own train, query and gallery; leave it out")
        found = {name: _find(base / name, screen) for name in _SPLITS}
    else:
        found = {"all": _find(base, screen)}
    if not any(found.values()):
        screen.finish()
        raise DatasetError(f"root: no tracklets in {base}; want {_LAYOUT}")
    tracklets = {name: screen.keep(items) for name, items in _number(found).items()}
    if present:
        protocol = "own tracklets, split by folder"
    else:
        every = tracklets.pop("all")
        trained = _trained(sorted({t.pid for t in every}), split, seed)
        tested = every if split is None else [t for t in every if t.pid not in trained]
        tracklets = {"train": [t for t in every if t.pid in trained], "query": tested, "gallery": tested}
        protocol = (
            "own tracklets, trained and tested on the same people"
            if split is None
            else f"own tracklets, {len(trained)} people for training (fraction {split}, seed {seed}), the others for testing"
        )
        protocol += "; every test tracklet is query and gallery"
    if _single_camera(found):
        protocol += "; one camera, each tracklet counts as its own"
    return TrackletDataset(
        name="tracklet_folder", root=os.fspath(root), **tracklets, protocol=protocol, skipped=screen.finish()
    )


def _find(folder: Path, screen: Screen) -> list[_Found]:
    found = []

    def add(person: str, camera: str | None, path: Path, images: list[str]) -> None:
        name = path.relative_to(folder.parent if folder.name in _SPLITS else folder).as_posix()
        if images:
            found.append(_Found(person, camera, name, tuple(os.fspath(path / image) for image in images)))
        else:
            screen.reject(name, f"{path}: an empty folder, no images in it")

    for person in list_folder(folder)[0]:
        for level in list_folder(folder / person)[0]:
            path = folder / person / level
            folders, images = list_folder(path)
            if images or not folders:
                add(person, None, path, images)
            for tracklet in folders:
                add(person, level, path / tracklet, list_folder(path / tracklet)[1])
    return found


def _number(found: dict[str, list[_Found]]) -> dict[str, list[Tracklet]]:
    """Tracklets of each split with pids and camids that hold across the splits."""
    every = [item for items in found.values() for item in items]
    pids = _enumerate({item.person for item in every}, re.compile(r"()(\d+)"))
    cameras = {item.camera for item in every if item.camera is not None}
    own = _single_camera(found)
    camids = {} if own else _enumerate(cameras, re.compile(r"(.*?)(\d+)"))
    # Tracklets that stand for a camera of their own are numbered after the real cameras.
    fresh = iter(range(max(camids.values(), default=0) + 1, max(camids.values(), default=0) + 1 + len(every)))

    def camid(item: _Found) -> int:
        return next(fresh) if own or item.camera is None else camids[item.camera]

    return {
        split: [Tracklet(item.paths, pids[item.person], camid(item), item.name) for item in items]
        for split, items in found.items()
    }


def _single_camera(found: dict[str, list[_Found]]) -> bool:
    return len({item.camera for items in found.values() for item in items}) == 1


def _enumerate(names: Iterable[str], pattern: re.Pattern[str]) -> dict[str, int]:
    """The number in each name if every name has one of its own, else 1, 2, ... in the order of the names."""
    ordered = sorted(names)
    matches = [pattern.fullmatch(name) for name in ordered]
    numbers = [int(match[2]) for match in matches if match is not None]
    if len(set(numbers)) < len(ordered):
        numbers = list(range(1, len(ordered) + 1))
    return dict(zip(ordered, numbers, strict=True))


def _trained(pids: list[int], split: float | None, seed: int) -> set[int]:
    if split is None:
        return set(pids)
    if not 0 < split < 1:
        raise ValueError(f"split: got {split}, want a fraction of the people in (0, 1), or None")
    count = round(split * len(pids))
    if not 0 < count < len(pids):
        raise ValueError(f"split: {split} of {len(pids)} people leaves none for training or none for testing")
    return set(np.random.default_rng(seed).permutation(pids)[:count].tolist())
