"""MARS (Zheng et al., ECCV 2016) and G2A-VReID (Zhang et al., ECCV 2024), which have the same layout.

Published layout:

    ROOT/bbox_train/0001/0001C1T0001F001.jpg     person, camera, tracklet, frame
    ROOT/bbox_test/00-1/..., 0000/...            junk (pid -1) and distractors (pid 0)
    ROOT/info/train_name.txt, test_name.txt      one image name per line
    ROOT/info/tracks_train_info.mat, tracks_test_info.mat, query_IDX.mat
    ROOT/mars_attributes.csv or ROOT/info/mars_attributes.csv   optional
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from vreid_ext.data.readers.attributes import find_attributes
from vreid_ext.data.readers.files import (
    Check,
    Gallery,
    OnError,
    Screen,
    find_root,
    gallery_sentence,
)
from vreid_ext.data.readers.matlab import load_matrix
from vreid_ext.data.records import DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

Attributes = dict[tuple[int, int, int], dict[str, int]]

_NAME = re.compile(r"(?:\d{4}|00-1)C\dT(\d{4})F\d+\.\w+")
_JUNK = -1


@register_dataset("mars")
def mars(
    root: str | os.PathLike[str],
    *,
    gallery: Gallery = "with_query",
    attributes: str | os.PathLike[str] | None = None,
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read MARS: 1,261 people, 20,478 tracklets, six cameras.

    Junk tracklets (pid -1) are dropped, distractors (pid 0) stay in the gallery.

    Args:
        root: folder with the layout above.
        gallery: "with_query" keeps the query tracklets in the gallery (11,310 tracklets; official evaluation
            code, AP3D, PSTA, TF-CLIP), "without_query" excludes them (9,330; torchreid, Video-Person-ReID,
            ASTA). Metrics of the two protocols are not comparable.
        attributes: attribute table (`read_attributes`); None: `mars_attributes.csv` if it exists.
        check: see `build_dataset`.
        on_error: see `build_dataset`.

    Raises:
        DatasetError: a file is missing, unreadable or inconsistent with the others. The message names it.
        ValueError: an invalid option.
    """
    labels = find_attributes(Path(root), attributes, "mars_attributes.csv", "mars")
    return _read("mars", "MARS", root, gallery, labels, Screen(check, on_error))


@register_dataset("g2a_vreid")
def g2a_vreid(
    root: str | os.PathLike[str],
    *,
    gallery: Gallery = "without_query",
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read G2A-VReID: 2,788 people, each with one tracklet from the ground and one from a drone.

    The layout is that of MARS with two cameras, read from a loader that others wrote for the published files;
    the authors' repository (https://github.com/FHR-L/G2A-VReID) has none. Which camera is the drone is not
    stated there. The query is the published one, that is, one direction.

    Args:
        root: folder with the layout of MARS.
        gallery: "without_query" excludes the query tracklets from the gallery, as that loader does;
            "with_query" keeps them.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: a file is missing, unreadable or inconsistent with the others. The message names it.
        ValueError: an invalid option.
    """
    return _read("g2a_vreid", "G2A-VReID", root, gallery, {}, Screen(check, on_error))


def _read(
    name: str,
    title: str,
    root: str | os.PathLike[str],
    gallery: Gallery,
    labels: Attributes,
    screen: Screen,
) -> TrackletDataset:
    sentence = gallery_sentence(gallery)
    needed = ("info",) if screen.check == "none" else ("info", "bbox_train", "bbox_test")
    base = find_root(root, f"bbox_train/, bbox_test/ and info/ of {title}", needed)
    info = base / "info"

    train_table = _matrix(info / "tracks_train_info.mat", "track_train_info")
    test_table = _matrix(info / "tracks_test_info.mat", "track_test_info")
    query_rows = _query_rows(info / "query_IDX.mat", len(test_table))
    train = _tracklets(base / "bbox_train", info / "train_name.txt", train_table, labels, screen)
    test = _tracklets(base / "bbox_test", info / "test_name.txt", test_table, labels, screen)

    # The query is a subset of the test tracklets, so checking the test tracklets covers both.
    kept_train = screen.keep(train.values())
    kept_test = {row: kept for row, t in test.items() if (kept := screen.usable(t)) is not None}
    skipped = screen.finish()
    return TrackletDataset(
        name=name,
        root=os.fspath(root),
        train=kept_train,
        query=[t for row, t in kept_test.items() if row in query_rows],
        gallery=[t for row, t in kept_test.items() if gallery == "with_query" or row not in query_rows],
        protocol=f"{title}, {sentence}",
        skipped=skipped,
        ignored=screen.ignored,
    )


def _tracklets(
    folder: Path, names_file: Path, table: np.ndarray, labels: Attributes, screen: Screen
) -> dict[int, Tracklet]:
    """Tracklets by row index of the table. Junk is excluded and counted as ignored."""
    names = _names(names_file)
    if table[:, 1].max() > len(names):
        raise DatasetError(
            f"{names_file}: expected at least {table[:, 1].max()} image names, as its matrix refers to, "
            f"got {len(names)}; take both files from the same release"
        )
    tracklets = {}
    persons = set()
    for row, (start, end, pid, camid) in enumerate(table.tolist()):
        frames = names[start - 1 : end]
        if pid == _JUNK:
            persons.add(frames[0][:4])
            screen.ignore("tracklets of pid -1", frames[0])
            continue
        matches = [_NAME.fullmatch(name) for name in frames]
        if None in matches:
            wrong = matches.index(None)
            raise DatasetError(
                f"{names_file}, line {start + wrong}: expected an image name like 0001C1T0001F001.jpg, "
                f"got {frames[wrong]!r:.60}"
            )
        stem = f"{pid:04}C{camid}"
        if not all(name.startswith(stem) for name in frames):
            raise DatasetError(
                f"{names_file}, lines {start} to {end}: expected names that start with {stem}, as in the "
                f"matrix, got {', '.join(sorted({name[:6] for name in frames})[:3])}; "
                "take both files from the same release"
            )
        persons.add(frames[0][:4])
        person = os.fspath(folder / frames[0][:4])
        tracklets[row] = Tracklet(
            paths=tuple(f"{person}/{name}" for name in frames),
            pid=pid,
            camid=camid,
            name=frames[0][:11],
            attributes=labels.get((pid, camid, int(frames[0][7:11]))),
        )
    if screen.check != "none":
        for name in screen.look(folder).folders:
            if name not in persons:
                screen.ignore("folders not listed in the tables", os.fspath(folder / name))
    return tracklets


def _names(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot read the image names ({error}); restore the file") from error


def _matrix(path: Path, key: str) -> np.ndarray:
    """Matrix of rows (start, end, pid, camera) as int64; start and end are 1-based and inclusive."""
    table = load_matrix(path, key)
    if table.ndim != 2 or table.shape[1] != 4 or not len(table):
        raise DatasetError(f"{path}: {key}: expected shape (tracklets, 4), got {table.shape}")
    table = table.astype(np.int64)
    wrong = np.flatnonzero((table[:, 0] < 1) | (table[:, 1] < table[:, 0]))
    if len(wrong):
        raise DatasetError(
            f"{path}: {key}, row {wrong[0] + 1}: expected 1 <= start <= end, "
            f"got start, end = {table[wrong[0], :2].tolist()}"
        )
    return table


def _query_rows(path: Path, num_test: int) -> set[int]:
    """0-based row indices of the query tracklets in the test matrix."""
    index = load_matrix(path, "query_IDX").astype(np.int64).ravel()
    if not len(index) or index.min() < 1 or index.max() > num_test:
        raise DatasetError(
            f"{path}: query_IDX: expected at least one row index, all from 1 to {num_test} (rows of the test "
            "matrix)"
        )
    return set((index - 1).tolist())
