"""LS-VID (Li et al., ICCV 2019): 3,772 people, 14,943 tracklets, 15 cameras.

Published layout, as the loaders of BiCnet-TKS and TF-CLIP read it:

    ROOT/list_sequence/list_seq_{train,test}.txt         lines: start of the image names, person
    ROOT/test/data/info_test.mat                         HDF5: query, rows of list_seq_test.txt from 1
    ROOT/tracklet_{train,test}/.../0000_0000_01_0001.jpg person, tracklet, camera, frame

TF-CLIP has the first two in ROOT/info/list_sequence and ROOT/info/data. They do not read list_seq_val.txt.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from vreid_ext.data.readers.files import (
    Check,
    Gallery,
    OnError,
    Screen,
    find_root,
    gallery_sentence,
    list_folder,
    read_rows,
)
from vreid_ext.data.readers.matlab import load_hdf5_matrix
from vreid_ext.data.records import DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

_EXAMPLE = "tracklet_train/0000/0000_0000 0"
_IMAGE = re.compile(r"-?\d+_\d+_(\d+)_\d+\.\w+")
_JUNK = -1


@register_dataset("lsvid")
def lsvid(
    root: str | os.PathLike[str],
    *,
    gallery: Gallery = "without_query",
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read LS-VID: 842 people for training, 2,730 for testing with 3,504 queries. Needs h5py.

    The images of a tracklet are those whose name begins with the path in the list, in order of frame number.
    Pid -1 is dropped. The 200 people for validation are not read.

    Args:
        root: folder with the layout above.
        gallery: "without_query" excludes the query tracklets from the gallery (7,829 tracklets; BiCnet-TKS,
            TF-CLIP). "with_query" keeps them (11,333). Metrics of the two are not comparable. The published
            code ignores tracklets of the query's person and camera in both.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: a file is missing, unreadable or inconsistent with the others. The message names it.
        ImportError: h5py is not installed.
        ValueError: an invalid option.
    """
    sentence = gallery_sentence(gallery)
    screen = Screen(check, on_error)
    base = find_root(root, "list_sequence/, test/, tracklet_train/ and tracklet_test/ of LS-VID")
    lists, info = base / "list_sequence", base / "test" / "data"
    if (base / "info").is_dir():
        lists, info = base / "info" / "list_sequence", base / "info" / "data"
    reader = _Reader(base, screen)
    train = reader.tracklets(lists / "list_seq_train.txt")
    test = reader.tracklets(lists / "list_seq_test.txt")
    path = info / "info_test.mat"
    rows = load_hdf5_matrix(path, "query").ravel().astype(int)
    if not len(rows) or rows.min() < 1 or rows.max() > len(test):
        raise DatasetError(
            f"{path}: query: expected at least one row of list_seq_test.txt, all from 1 to {len(test)}"
        )
    query_rows = set((rows - 1).tolist())
    kept = {
        row: tracklet
        for row, each in enumerate(test)
        if each is not None and (tracklet := screen.usable(each)) is not None
    }
    return TrackletDataset(
        name="lsvid",
        root=os.fspath(root),
        train=screen.keep(each for each in train if each is not None),
        query=[each for row, each in kept.items() if row in query_rows],
        gallery=[each for row, each in kept.items() if gallery == "with_query" or row not in query_rows],
        protocol=f"LS-VID, {sentence}",
        skipped=screen.finish(),
        ignored=screen.ignored,
    )


class _Reader:
    """Finds the images of tracklets by the start of their names; lists each folder once."""

    def __init__(self, base: Path, screen: Screen) -> None:
        self._base, self._screen = base, screen
        self._folder, self._images = Path(), list[str]()

    def tracklets(self, path: Path) -> list[Tracklet | None]:
        """One tracklet for each line of a list; None for junk and for tracklets that are rejected."""
        found: list[Tracklet | None] = []
        for number, (prefix, pid) in enumerate(read_rows(path, 2, _EXAMPLE), start=1):
            if not re.fullmatch(r"-?\d+", pid):
                raise DatasetError(
                    f"{path}, entry {number}: expected a line like {_EXAMPLE!r}, got {prefix} {pid}"
                )
            if int(pid) == _JUNK:
                self._screen.ignore("tracklets of pid -1", prefix)
                found.append(None)
                continue
            try:
                found.append(self._tracklet(prefix, int(pid)))
            except DatasetError as error:
                self._screen.reject(prefix, str(error))
                found.append(None)
        return found

    def _tracklet(self, prefix: str, pid: int) -> Tracklet:
        folder, start = self._base / os.path.dirname(prefix), os.path.basename(prefix)
        if folder != self._folder:
            self._images, self._folder = list_folder(folder).images, folder
        # 0000_0001 is not the start of the names of tracklet 0000_00010.
        names = [
            name for name in self._images if name.startswith(start) and not name[len(start) :][:1].isdigit()
        ]
        if not names:
            raise DatasetError(f"{folder}: expected images whose names start with {start!r}, got none")
        cameras = set()
        for name in names:
            match = _IMAGE.fullmatch(name)
            if match is None:
                raise DatasetError(f"{folder}: expected image names like 0000_0000_01_0001.jpg, got {name!r}")
            cameras.add(int(match[1]))
        if len(cameras) > 1:
            raise DatasetError(f"{folder}: expected {start!r} of one camera, got cameras {sorted(cameras)}")
        paths = tuple(os.fspath(folder / name) for name in names)
        return Tracklet(paths, pid, cameras.pop(), prefix)
