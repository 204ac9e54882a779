"""One's own tracklets in plain folders.

    ROOT/{train,query,gallery}/<person>/<camera>/<tracklet>/*.jpg     with the three splits, or
    ROOT/<person>/<camera>/<tracklet>/*.jpg                           without

The level <camera> may be left out: ROOT/train/<person>/<tracklet>/*.jpg. Images are taken in the order of the
numbers in their names, with or without leading zeros. Images at any other level are an error or, with
on_error="skip", a line of `TrackletDataset.skipped`; hidden files and files that are no images are counted in
`TrackletDataset.ignored`.
"""

from __future__ import annotations

import dataclasses
import filecmp
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vreid_ext.data.names import nfc
from vreid_ext.data.readers.files import Check, OnError, Screen, find_root
from vreid_ext.data.records import SPLITS, DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

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
    (cam1) if every camera has a different one, else 1, 2, ... in the order of the names. Names that differ in
    the encoding of their accents alone (NFC, NFD) are one name.

    Without cameras, or with a single one, each tracklet counts as a camera of its own, so that the rule
    "ignore the query's person and camera" leaves out nothing but the query itself: a gallery tracklet with
    the same images, byte for byte. Names of tracklets do not matter: numbers may start again in every split.

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
        raise ValueError(f"split: expected a fraction of the people in (0, 1), or None, got {split}")
    screen = Screen(check, on_error)
    base = find_root(root, _LAYOUT)
    has_splits = any((base / name).is_dir() for name in SPLITS)
    if has_splits:
        find_root(root, _LAYOUT, SPLITS)
        if split is not None:
            own = "which has a train, query and gallery of its own"
            raise ValueError(f"split: expected None for {base}, {own}, got {split}")
        for name in screen.folders(base, "folders of splits"):
            if name not in SPLITS:
                screen.unread(base / name, "expected nothing beside train, query and gallery, got images")
    found = {name: _find(base / name, screen) for name in (SPLITS if has_splits else (".",))}
    if not any(found.values()):
        screen.finish()
        raise DatasetError(f"root: expected {_LAYOUT}, got no tracklet in {base}")
    tracklets = {name: screen.keep(items) for name, items in _numbered(found).items()}
    if has_splits:
        train, query, gallery = (tracklets[name] for name in SPLITS)
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
        ignored=screen.ignored,
    )


def _find(folder: Path, screen: Screen) -> list[_Found]:
    found = []

    def add(person: str, camera: str | None, path: Path, images: list[str]) -> None:
        if images:
            paths = tuple(os.fspath(path / image) for image in images)
            place = path.relative_to(folder).as_posix()
            found.append(_Found(nfc(person), None if camera is None else nfc(camera), place, paths))
        else:
            screen.reject(os.fspath(path), "an empty folder, no images in it")

    for person in screen.folders(folder, "folders of persons"):
        for level in screen.folders(folder / person, "folders of tracklets"):
            path = folder / person / level
            inner = screen.look(path)
            if inner.images or not inner.folders:
                add(person, level if inner.folders else None, path, inner.images)
            for tracklet in inner.folders:
                add(person, level, path / tracklet, screen.images(path / tracklet))
    return found


def _numbered(found: dict[str, list[_Found]]) -> dict[str, list[Tracklet]]:
    """Tracklets of each split, with pids and camids that hold across the splits."""
    every = [item for items in found.values() for item in items]
    pids = _numbers({item.person for item in every}, r"(\d+)")
    own = _single_camera(found)
    camids = {} if own else _numbers({item.camera for item in every if item.camera is not None}, r".*?(\d+)")
    alone = {name: [i for i in items if own or i.camera is None] for name, items in found.items()}
    own_camids = _own_camids(alone, max(camids.values(), default=0) + 1)

    def tracklet(split: str, item: _Found) -> Tracklet:
        camid = own_camids[item.paths] if item.paths in own_camids else camids[item.camera or ""]
        return Tracklet(item.paths, pids[item.person], camid, (Path(split) / item.place).as_posix())

    return {split: [tracklet(split, item) for item in items] for split, items in found.items()}


def _own_camids(found: dict[str, list[_Found]], first: int) -> dict[tuple[str, ...], int]:
    """A camid for each tracklet's images, from `first` on: a query and its copy in the gallery share one."""
    numbers = itertools.count(first)
    camids: dict[tuple[str, ...], int] = {}
    queries: dict[tuple[str, int], list[_Found]] = {}
    for item in found.get("query", ()):
        queries.setdefault((item.person, len(item.paths)), []).append(item)
    for split, items in found.items():
        for item in items:
            rest = queries.get((item.person, len(item.paths)), []) if split == "gallery" else []
            # Two tracklets of one split are two even with the same images, so a query has one copy at most.
            by_place = sorted(rest, key=lambda query: query.place != item.place)
            copied = next((query for query in by_place if _same_images(query, item)), None)
            if copied is None:
                camids[item.paths] = next(numbers)
            else:
                rest.remove(copied)
                camids[item.paths] = camids[copied.paths]
    return camids


def _same_images(a: _Found, b: _Found) -> bool:
    """Whether two tracklets of as many frames have the same images; sizes alone tell most apart."""
    try:
        return all(filecmp.cmp(one, other, shallow=False) for one, other in zip(a.paths, b.paths))
    except OSError:  # a link to nowhere: is rejected when the tracklet is used
        return False


def _single_camera(found: dict[str, list[_Found]]) -> bool:
    return len({item.camera for items in found.values() for item in items}) == 1


def _numbers(names: Iterable[str], pattern: str) -> dict[str, int]:
    """The number that `pattern` finds in each name if all have a different one, else 1, 2, ... by name."""
    ordered = sorted(names)
    matches = [re.fullmatch(pattern, name) for name in ordered]
    numbers = [int(match[1]) for match in matches if match]
    usable = len(set(numbers)) == len(ordered) and max(numbers, default=0) < 2**63
    return dict(zip(ordered, numbers if usable else itertools.count(1)))


def _drawn(pids: list[int], fraction: float, seed: int) -> set[int]:
    count = round(fraction * len(pids))
    if not 0 < count < len(pids):
        raise ValueError(
            f"split: {fraction} of {len(pids)} people leaves none for training or none for testing"
        )
    return set(np.random.default_rng(seed).permutation(pids)[:count].tolist())
