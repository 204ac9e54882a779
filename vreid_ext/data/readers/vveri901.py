"""VVeRI-901 (Zhao et al., CVPR 2021): tracklets of vehicles.

Layout of the trial version (95 vehicles), the only one whose files public loaders read:

    ROOT/train.txt, query.txt, gallery.txt             lines: ./VVERI901_V1_Trial/2120/L09_C31_V07
    ROOT/2120/L09_C31_V07/21553.png                    vehicle / location, camera, video / frame
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from vreid_ext.data.readers.files import Check, OnError, Screen, find_root, read_rows
from vreid_ext.data.records import SPLITS, DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

_EXAMPLE = "./VVERI901_V1_Trial/2120/L09_C31_V07"
_FOLDER = re.compile(r"(?:.*/)?((\d+)/L(\d+)_C(\d+)_V\d+)/?")


@register_dataset("vveri901")
def vveri901(
    root: str | os.PathLike[str], *, check: Check = "exists", on_error: OnError = "raise"
) -> TrackletDataset:
    """Read VVeRI-901, in the layout of its trial version. Every tracklet has the tag "location".

    The layout was read from loaders that others wrote for the trial version. Whether the full data set has
    the same layout is not known. The evaluation code of the authors was not found; as for the other data
    sets, evaluation ignores tracklets of the query's vehicle and camera.

    Args:
        root: folder with the layout above, or its parent with the layout in VVERI901_V1_Trial/.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: a list is missing or damaged, or a tracklet has no images. The message names it.
        ValueError: an invalid option.
    """
    screen = Screen(check, on_error)
    inner = Path(root, "VVERI901_V1_Trial")
    lists = [f"{split}.txt" for split in SPLITS]
    base = find_root(
        inner if inner.is_dir() else root, "train.txt, query.txt and gallery.txt of VVeRI-901", lists
    )
    train, query, gallery = (_split(base, base / name, screen) for name in lists)
    return TrackletDataset(
        name="vveri901",
        root=os.fspath(root),
        train=train,
        query=query,
        gallery=gallery,
        protocol="VVeRI-901, its own query and gallery",
        skipped=screen.finish(),
        ignored=screen.ignored,
    )


def _split(base: Path, path: Path, screen: Screen) -> list[Tracklet]:
    tracklets = []
    for number, (line,) in enumerate(read_rows(path, 1, _EXAMPLE), start=1):
        match = _FOLDER.fullmatch(line)
        if match is None:
            raise DatasetError(f"{path}, entry {number}: expected a line like {_EXAMPLE!r}, got {line!r:.80}")
        name, pid, location, camera = match.groups()
        if paths := screen.frames(base / name, name):
            tags = {"location": int(location)}
            tracklets.append(Tracklet(paths, int(pid), int(camera), name, tags=tags))
    return screen.keep(tracklets)
