"""CCVID (Gu et al., CVPR 2022): 226 people in 480 outfits, 2,856 tracklets, three sessions.

Published layout:

    ROOT/train.txt, query.txt, gallery.txt             lines: folder, person, clothes
    ROOT/session1/001_01/00001.jpg                     session / person, camera / frame
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, get_args

from vreid_ext.data.readers.files import Check, OnError, Screen, find_root, read_rows, setting_rule
from vreid_ext.data.records import SPLITS, DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

Setting = Literal["general", "clothes_changing", "same_clothes"]

_EXAMPLE = "session1/001_01 001 u0_l0_s0_c0_a0"
_FOLDER = re.compile(r"session(\d)/\d+_(\d+)")
_CAMERAS = 12  # of sessions 1 and 2; the authors' code numbers those of session 3 from 13


@register_dataset("ccvid")
def ccvid(
    root: str | os.PathLike[str],
    *,
    setting: Setting = "general",
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read CCVID, whose people change their clothes between tracklets.

    Every tracklet has the tag "clothes", which is unique over persons. Cameras are numbered as in the code of
    the authors (https://github.com/guxinqian/Simple-CCReID): the second number of the folder, plus 12 in
    session 3.

    Args:
        root: folder with the layout above, or its parent with the layout in CCVID/.
        setting: gallery tracklets of the query's person that evaluation ignores, besides those of the query's
            camera: "general" none, "clothes_changing" those with the query's clothes, "same_clothes" those
            with other clothes. The paper reports the first two.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: a list is missing or damaged, or a tracklet has no images. The message names it.
        ValueError: an invalid option.
    """
    sentence, junk_tags = setting_rule(setting, get_args(Setting))
    screen = Screen(check, on_error)
    lists = [f"{split}.txt" for split in SPLITS]
    inner = Path(root, "CCVID")
    base = find_root(
        inner if inner.is_dir() else root, "train.txt, query.txt and gallery.txt of CCVID", lists
    )
    rows = {split: read_rows(base / f"{split}.txt", 3, _EXAMPLE) for split in SPLITS}
    names = sorted({(pid, clothes) for part in rows.values() for _, pid, clothes in part})
    clothes = {name: number for number, name in enumerate(names)}
    parts = {}
    for split, part in rows.items():
        tracklets = []
        for number, (folder, pid, outfit) in enumerate(part, start=1):
            match = _FOLDER.fullmatch(folder)
            if match is None or not pid.isdigit():
                raise DatasetError(
                    f"{base / f'{split}.txt'}, entry {number}: expected a line like {_EXAMPLE!r}, "
                    f"got {' '.join((folder, pid, outfit))!r:.80}"
                )
            camid = int(match[2]) + _CAMERAS * (match[1] == "3")
            tags = {"clothes": clothes[pid, outfit]}
            if frames := screen.frames(base / folder, folder):
                tracklets.append(Tracklet(frames, int(pid), camid, folder, tags=tags))
        parts[split] = screen.keep(tracklets)
    return TrackletDataset(
        name="ccvid",
        root=os.fspath(root),
        train=parts["train"],
        query=parts["query"],
        gallery=parts["gallery"],
        protocol=f"CCVID, {sentence}",
        junk_tags=junk_tags,
        skipped=screen.finish(),
        ignored=screen.ignored,
    )
