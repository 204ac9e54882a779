"""Reader for user data in plain folders, one folder per tracklet.

    ROOT/{train,query,gallery}/<person>/<camera>/<tracklet>/*.jpg     with splits, or
    ROOT/<person>/<camera>/<tracklet>/*.jpg                           without splits

The level <camera> is optional: ROOT/train/<person>/<tracklet>/*.jpg. Images are sorted by the numbers in
their names, with or without leading zeros. Images at any other level raise an error or, with
on_error="skip", are listed in `TrackletDataset.skipped`. Hidden files and files that are not images are
counted in `TrackletDataset.ignored`.
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

_LAYOUT = "train/, query/ and gallery/, or one folder per person (ROOT/<person>/<camera>/<tracklet>/*.jpg)"


@dataclasses.dataclass(frozen=True)
class _Found:
    person: str
    camera: str | None
    folder: str  # relative to the folder of the split
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
    """Read tracklets from plain folders (see the module's docstring for the layout).

    The pid is the name of the person's folder if all these names are distinct numbers, else 1, 2, ... in the
    order of the names. A person has the same pid in all splits. The camid is the number at the end of the
    camera's folder name (e.g. cam1) if these numbers are distinct, else 1, 2, ... in the order of the names.
    Names that differ only in Unicode normalization (NFC, NFD) are equal.

    Without camera folders, or with a single camera, each tracklet gets a camid of its own. Evaluation, which
    ignores gallery tracklets with the pid and camid of the query, then ignores only copies of the query: a
    gallery tracklet of the same person with identical images gets the camid of the query. Tracklet names need
    not be unique across splits.

    Args:
        root: folder with the layout above.
        split: only for a root without splits. None: train, query and gallery each contain all tracklets. A
            fraction in (0, 1): this fraction of the people is used for training; query and gallery each
            contain all tracklets of the others.
        seed: seed of the random `split`.
        check: see `build_dataset`.
        on_error: see `build_dataset`.

    Raises:
        DatasetError: a folder is missing, empty or has another layout. The message names it.
        ValueError: an invalid option.
    """
    if split is not None and not 0 < split < 1:
        raise ValueError(f"split: expected a fraction of the people in (0, 1), or None, got {split}")
    screen = Screen(check, on_error)
    base = find_root(root, _LAYOUT)
    has_splits = any((base / name).is_dir() for name in SPLITS)
    if has_splits:
        find_root(root, _LAYOUT, SPLITS)
        if split is not None:
            raise ValueError(f"split: expected None for a root with the three splits ({base}), got {split}")
        for name in screen.folders(base, "folders of splits"):
            if name not in SPLITS:
                screen.unread(base / name, "expected only train, query and gallery, got a folder with images")
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
        protocol = "own tracklets; training, query and gallery each contain all of them"
    else:
        pids = _drawn(sorted({t.pid for t in tracklets["."]}), split, seed)
        train = [t for t in tracklets["."] if t.pid in pids]
        query = gallery = [t for t in tracklets["."] if t.pid not in pids]
        protocol = (
            f"own tracklets, fraction {split} of the people for training (seed {seed}); "
            "query and gallery each contain all tracklets of the other people"
        )
    if _single_camera(found):
        protocol += "; one camera, each tracklet has its own camid"
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
            relative = path.relative_to(folder).as_posix()
            found.append(_Found(nfc(person), None if camera is None else nfc(camera), relative, paths))
        else:
            screen.reject(os.fspath(path), "expected at least one image, got an empty folder")

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
    """Tracklets of each split, with pids and camids that are consistent across the splits."""
    every = [item for items in found.values() for item in items]
    pids = _numbers({item.person for item in every}, r"(\d+)")
    single = _single_camera(found)
    camids = (
        {} if single else _numbers({item.camera for item in every if item.camera is not None}, r".*?(\d+)")
    )
    no_camera = {name: [i for i in items if single or i.camera is None] for name, items in found.items()}
    own_camids = _own_camids(no_camera, max(camids.values(), default=0) + 1)

    def tracklet(split: str, item: _Found) -> Tracklet:
        camid = own_camids[item.paths] if item.paths in own_camids else camids[item.camera or ""]
        return Tracklet(item.paths, pids[item.person], camid, (Path(split) / item.folder).as_posix())

    return {split: [tracklet(split, item) for item in items] for split, items in found.items()}


def _own_camids(found: dict[str, list[_Found]], first: int) -> dict[tuple[str, ...], int]:
    """A unique camid >= `first` for each tracklet; a query and its copy in the gallery share one."""
    numbers = itertools.count(first)
    camids: dict[tuple[str, ...], int] = {}
    queries: dict[tuple[str, int], list[_Found]] = {}
    for item in found.get("query", ()):
        queries.setdefault((item.person, len(item.paths)), []).append(item)
    for split, items in found.items():
        for item in items:
            candidates = queries.get((item.person, len(item.paths)), []) if split == "gallery" else []
            by_folder = sorted(candidates, key=lambda query: query.folder != item.folder)
            original = next((query for query in by_folder if _same_images(query, item)), None)
            if original is None:
                camids[item.paths] = next(numbers)
            else:
                # A query matches at most one copy: identical tracklets in one split stay distinct.
                candidates.remove(original)
                camids[item.paths] = camids[original.paths]
    return camids


def _same_images(a: _Found, b: _Found) -> bool:
    """Whether two tracklets with the same number of frames have identical files.

    `filecmp` compares the sizes first, so most pairs are not read.
    """
    try:
        return all(filecmp.cmp(one, other, shallow=False) for one, other in zip(a.paths, b.paths))
    except OSError:  # e.g. a broken symbolic link; the tracklet is rejected by `Screen.keep`
        return False


def _single_camera(found: dict[str, list[_Found]]) -> bool:
    return len({item.camera for items in found.values() for item in items}) == 1


def _numbers(names: Iterable[str], pattern: str) -> dict[str, int]:
    """Number each name: by the number that `pattern` matches if all are distinct, else 1, 2, ... by order."""
    ordered = sorted(names)
    matches = [re.fullmatch(pattern, name) for name in ordered]
    numbers = [int(match[1]) for match in matches if match]
    usable = len(set(numbers)) == len(ordered) and max(numbers, default=0) < 2**63
    return dict(zip(ordered, numbers if usable else itertools.count(1)))


def _drawn(pids: list[int], fraction: float, seed: int) -> set[int]:
    count = round(fraction * len(pids))
    if not 0 < count < len(pids):
        raise ValueError(
            f"split: expected a fraction that leaves people for training and for testing, got {fraction} of "
            f"{len(pids)} people"
        )
    return set(np.random.default_rng(seed).permutation(pids)[:count].tolist())
