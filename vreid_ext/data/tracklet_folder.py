"""One's own tracklets in plain folders.

    ROOT/{train,query,gallery}/<person>/<camera>/<tracklet>/*.jpg     with the three splits, or
    ROOT/<person>/<camera>/<tracklet>/*.jpg                           without

The level <camera> may be left out: ROOT/train/<person>/<tracklet>/*.jpg. Images are taken in the order of
their names, so numbers in them need leading zeros. Hidden files and files that are no images are ignored.
"""

from __future__ import annotations

import dataclasses
import itertools
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
    place: str  # folder within the split
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
    """Read one's own tracklets.

    The pid is the person's folder name if all are different numbers, else 1, 2, ... in order of the names;
    a person has the same pid in every split. The camid is the number at the end of the camera's folder name
    (cam1) if every camera has a different one, else 1, 2, ... in the order of the names. Without cameras, or
    with a single one, each tracklet counts as a camera of its own, the same in every split, so that the rule
    "ignore the query's person and camera" leaves out nothing but the query itself.

    Args:
        root: folder of the layout above.
        split: for a root without splits. None: train, query and gallery are all tracklets. A fraction in
            (0, 1): that share of the people is for training; query and gallery are all tracklets of the
            others.
        seed: which people `split` draws.
        check: see `build_dataset`.
        on_error: see `build_dataset`.

    Raises:
        DatasetError: naming the folder that is missing, empty or of another layout.
        ValueError: a bad option.
    """
    if split is not None and not 0 < split < 1:
        raise ValueError(f"split: got {split}, want a fraction of the people in (0, 1), or None")
    screen = Screen(check, on_error)
    base = find_root(root, _LAYOUT)
    has_splits = any((base / name).is_dir() for name in _SPLITS)
    if has_splits:
        find_root(root, _LAYOUT, _SPLITS)
        if split is not None:
            raise ValueError(f"split: got {split}, but {base} has a train, query and gallery of its own")
    found = {name: _find(base / name, screen) for name in (_SPLITS if has_splits else (".",))}
    if not any(found.values()):
        screen.finish()
        raise DatasetError(f"root: no tracklets in {base}; want {_LAYOUT}")
    tracklets = {name: screen.keep(items) for name, items in _numbered(found).items()}
    if has_splits:
        train, query, gallery = (tracklets[name] for name in _SPLITS)
        protocol = "own tracklets, split by folder"
    elif split is None:
        train = query = gallery = tracklets["."]
        protocol = "own tracklets, trained and tested on the same ones; query and gallery are all"
    else:
        pids = _drawn(sorted({t.pid for t in tracklets["."]}), split, seed)
        train = [t for t in tracklets["."] if t.pid in pids]
        query = gallery = [t for t in tracklets["."] if t.pid not in pids]
        protocol = (
            f"own tracklets, fraction {split} of the people for training (seed {seed}); "
            "query and gallery are all tracklets of the others"
        )
    if _single_camera(found):
        protocol += "; one camera, each tracklet counts as a camera of its own"
    return TrackletDataset(
        name="tracklet_folder",
        root=os.fspath(root),
        train=train,
        query=query,
        gallery=gallery,
        protocol=protocol,
        skipped=screen.finish(),
    )


def _find(folder: Path, screen: Screen) -> list[_Found]:
    found = []

    def add(person: str, camera: str | None, path: Path, images: list[str]) -> None:
        if images:
            paths = tuple(os.fspath(path / image) for image in images)
            found.append(_Found(person, camera, path.relative_to(folder).as_posix(), paths))
        else:
            screen.reject(os.fspath(path), "an empty folder, no images in it")

    for person in list_folder(folder)[0]:
        for level in list_folder(folder / person)[0]:
            path = folder / person / level
            folders, images = list_folder(path)
            if images or not folders:
                add(person, None, path, images)
            for tracklet in folders:
                add(person, level, path / tracklet, list_folder(path / tracklet)[1])
    return found


def _numbered(found: dict[str, list[_Found]]) -> dict[str, list[Tracklet]]:
    """Tracklets of each split, with pids and camids that hold across the splits."""
    every = [item for items in found.values() for item in items]
    pids = _numbers({item.person for item in every}, r"(\d+)")
    own = _single_camera(found)
    camids = {} if own else _numbers({item.camera for item in every if item.camera is not None}, r".*?(\d+)")
    # A tracklet that is a camera of its own is numbered by its place, after the real cameras.
    places = sorted({item.place for item in every if own or item.camera is None})
    places_camids = dict(zip(places, itertools.count(max(camids.values(), default=0) + 1)))

    def tracklet(split: str, item: _Found) -> Tracklet:
        camid = places_camids[item.place] if item.place in places_camids else camids[item.camera or ""]
        return Tracklet(item.paths, pids[item.person], camid, (Path(split) / item.place).as_posix())

    return {split: [tracklet(split, item) for item in items] for split, items in found.items()}


def _single_camera(found: dict[str, list[_Found]]) -> bool:
    return len({item.camera for items in found.values() for item in items}) == 1


def _numbers(names: Iterable[str], pattern: str) -> dict[str, int]:
    """The number that `pattern` finds in each name if all have a different one, else 1, 2, ... by name."""
    ordered = sorted(names)
    matches = [re.fullmatch(pattern, name) for name in ordered]
    numbers = [int(match[1]) for match in matches if match]
    return dict(zip(ordered, numbers if len(set(numbers)) == len(ordered) else itertools.count(1)))


def _drawn(pids: list[int], fraction: float, seed: int) -> set[int]:
    count = round(fraction * len(pids))
    if not 0 < count < len(pids):
        raise ValueError(
            f"split: {fraction} of {len(pids)} people leaves none for training or none for testing"
        )
    return set(np.random.default_rng(seed).permutation(pids)[:count].tolist())
