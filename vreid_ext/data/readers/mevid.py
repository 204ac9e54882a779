"""MEVID (Davila et al., WACV 2023): 158 people in 598 outfits, 8,092 tracklets, 33 cameras.

Published layout:

    ROOT/bbox_train/0201/0201O003C330T004F00192.jpg    person, outfit, camera, tracklet, frame
    ROOT/bbox_test/...
    ROOT/train_name.txt, test_name.txt                 one image name per line
    ROOT/track_train_info.txt, track_test_info.txt     start, end (from 0, inclusive), person, outfit, camera
    ROOT/query_IDX.txt                                 rows of track_test_info.txt, from 0
    ROOT/test_track_scale.txt                          optional, from https://github.com/Kitware/MEVID: image
                                                       name and size class of each test tracklet
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from vreid_ext.data.readers.files import Check, OnError, Screen, find_root, read_rows, setting_rule
from vreid_ext.data.records import DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

Setting = Literal[
    "general",
    "clothes_changing",
    "same_clothes",
    "location_changing",
    "same_location",
    "scale_changing",
    "same_scale",
]

_IMAGE = re.compile(r"(\d{4})O(\d{3})C(\d{3})T(\d{3})F\d+\.\w+")
_INDOOR = (329, 330, 507, 508, 509)  # the other cameras of the test set are outdoors
_LISTS = ("train_name.txt", "track_train_info.txt", "test_name.txt", "track_test_info.txt", "query_IDX.txt")


@register_dataset("mevid")
def mevid(
    root: str | os.PathLike[str],
    *,
    setting: Setting = "general",
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read MEVID: 104 people for training, 54 for testing. The query tracklets are not in the gallery.

    Every tracklet has the tags "clothes" (unique over persons) and "location", 0 indoors and 1 outdoors: the
    two groups of cameras in the authors' code. Test tracklets have the tag "scale" if test_track_scale.txt is
    in the folder. The authors' file has the size classes l and m only, one per test tracklet in the order of
    the table.

    Args:
        root: folder with the layout above.
        setting: gallery tracklets of the query's person that evaluation ignores, besides those of the query's
            camera: "general" none; "clothes_changing", "location_changing" and "scale_changing" those with
            the value of the query; "same_clothes", "same_location" and "same_scale" those with another value.
            The authors' code prints the figures of all.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: a file is missing, unreadable or inconsistent with the others. The message names it.
        ValueError: an invalid option.
    """
    sentence, junk_tags = setting_rule(setting, get_args(Setting))
    screen = Screen(check, on_error)
    base = find_root(root, f"{', '.join(_LISTS)} of MEVID", _LISTS)
    scales = _scales(base / "test_track_scale.txt", needed="scale" in junk_tags)
    clothes: dict[tuple[int, int], int] = {}
    train = _tracklets(base, "train", clothes, [], screen)
    test = _tracklets(base, "test", clothes, scales, screen)
    path = base / "query_IDX.txt"
    rows = _numbers(path, 1, "17")[:, 0]
    if rows.min() < 0 or rows.max() >= len(test):
        raise DatasetError(f"{path}: expected rows of track_test_info.txt, all from 0 to {len(test) - 1}")
    query_rows = set(rows.tolist())
    kept = {row: found for row, each in enumerate(test) if (found := screen.usable(each)) is not None}
    return TrackletDataset(
        name="mevid",
        root=os.fspath(root),
        train=screen.keep(train),
        query=[each for row, each in kept.items() if row in query_rows],
        gallery=[each for row, each in kept.items() if row not in query_rows],
        protocol=f"MEVID, {sentence}",
        junk_tags=junk_tags,
        skipped=screen.finish(),
        ignored=screen.ignored,
    )


def _tracklets(
    base: Path, split: str, clothes: dict[tuple[int, int], int], scales: list[int], screen: Screen
) -> list[Tracklet]:
    names_file, table_file = base / f"{split}_name.txt", base / f"track_{split}_info.txt"
    names = [name for (name,) in read_rows(names_file, 1, "0201O003C330T004F00192.jpg")]
    table = _numbers(table_file, 5, "0 9 103 20 424")
    if scales and len(scales) != len(table):
        raise DatasetError(
            f"{base / 'test_track_scale.txt'}: expected {len(table)} lines like {table_file.name}, "
            f"got {len(scales)}"
        )
    tracklets = []
    for row, (start, end, pid, outfit, camid) in enumerate(table.tolist()):
        frames = names[start : end + 1]
        if not 0 <= start <= end < len(names):
            raise DatasetError(
                f"{table_file}, row {row}: expected 0 <= start <= end < {len(names)} (lines of "
                f"{names_file.name}), got start, end = {start}, {end}"
            )
        matches = [_IMAGE.fullmatch(name) for name in frames]
        wrong = [
            name
            for name, match in zip(frames, matches, strict=True)
            if match is None or tuple(map(int, match.groups()[:3])) != (pid, outfit, camid)
        ]
        if wrong:
            raise DatasetError(
                f"{names_file}, lines {start + 1} to {end + 1}: expected names like "
                f"{pid:04}O{outfit:03}C{camid:03}T000F00000.jpg, as in row {row} of {table_file.name}, "
                f"got {wrong[0]!r:.60}"
            )
        tags = {
            "clothes": clothes.setdefault((pid, outfit), len(clothes)),
            "location": int(camid not in _INDOOR),
        }
        if scales:
            tags["scale"] = scales[row]
        person = os.fspath(base / f"bbox_{split}" / frames[0][:4])
        paths = tuple(f"{person}/{name}" for name in frames)
        tracklets.append(Tracklet(paths, pid, camid, frames[0][:16], tags=tags))
    return tracklets


def _numbers(path: Path, columns: int, example: str) -> np.ndarray:
    """Table of whole numbers as int64. They may be written as 1.03e+02, as NumPy does."""
    rows = read_rows(path, columns, example)
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise DatasetError(f"{path}: expected lines like {example!r}, got an error: {error}") from error
    if not (np.isfinite(table) & (table == np.floor(table))).all():
        raise DatasetError(f"{path}: expected whole numbers, as in {example!r}, got others")
    return table.astype(np.int64)


def _scales(path: Path, needed: bool) -> list[int]:
    if not path.is_file():
        if needed:
            raise DatasetError(
                f"{path}: no such file; it is published with the code of MEVID "
                "(https://github.com/Kitware/MEVID) and needed for the settings of the scale"
            )
        return []
    known = {"s": 0, "m": 1, "l": 2}
    rows = read_rows(path, 2, "0201O003C330T004F00855.jpg l")
    for number, (_, scale) in enumerate(rows, start=1):
        if scale not in known:
            raise DatasetError(f"{path}, entry {number}: expected one of {', '.join(known)}, got {scale!r}")
    return [known[scale] for _, scale in rows]
