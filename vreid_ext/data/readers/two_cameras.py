"""iLIDS-VID (Wang et al., ECCV 2014) and PRID2011 (Hirzer et al., SCIA 2011).

Each person has one tracklet in each of two cameras. Metrics are averaged over ten random splits of the
people. Published layouts:

    ROOT/i-LIDS-VID/sequences/cam1/person001/*.png, cam2/person001/*.png
    ROOT/train-test people splits/train_test_splits_ilidsvid.mat    ls_set (10, people), 1-based indices into
                                  the sorted list of people; the first half of each row is the test set
    ROOT/prid_2011/multi_shot/cam_a/person_0001/*.png, cam_b/person_0001/*.png
    ROOT/splits_prid2011.json     list of ten {"train": [folders], "test": [folders]}

Splits drawn from a seed are stored in ROOT, e.g. as splits_ilids_seed0.json, in the format of
splits_prid2011.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vreid_ext._files import whole_file
from vreid_ext.data.names import is_folder_name, nfc
from vreid_ext.data.readers.files import Check, OnError, Screen, find_root, list_folder
from vreid_ext.data.readers.matlab import load_matrix
from vreid_ext.data.records import DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

SPLITS = 10

Split = dict[str, list[str]]  # "train", "test": folder names of people


@register_dataset("ilids")
def ilids(
    root: str | os.PathLike[str],
    *,
    split: int = 0,
    split_seed: int | None = None,
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read iLIDS-VID: 300 people, 150 for training; queries from cam1, gallery from cam2.

    Args:
        root: folder with the layout above.
        split: index of the split, 0 to 9.
        split_seed: draw the splits from this seed and store them in the root; None: use the published splits,
            or the splits of seed 0 if their file is missing.
        check: see `build_dataset`.
        on_error: see `build_dataset`. "skip" excludes people without two usable tracklets.

    Raises:
        DatasetError: a folder or file is missing, empty or inconsistent with the others. The message names
            it.
        ValueError: an invalid option.
    """
    base = find_root(root, "i-LIDS-VID/ and 'train-test people splits/'", ("i-LIDS-VID/sequences",))
    screen = Screen(check, on_error)
    cameras = [_camera(base / "i-LIDS-VID" / "sequences" / name, screen) for name in ("cam1", "cam2")]
    people = [set(camera.people) for camera in cameras]
    for person in sorted(people[0] ^ people[1]):
        seen = cameras[person in people[1]].path.name
        screen.reject(person, f"{base}: expected a folder {person} in both cameras, got it only in {seen}")
    both = sorted(people[0] & people[1])
    published = base / "train-test people splits" / "train_test_splits_ilidsvid.mat"

    def read() -> list[Split]:
        everyone = sorted(people[0] | people[1])
        rows = load_matrix(published, "ls_set").astype(np.int64)
        if rows.ndim != 2 or not rows.size or rows.min() < 1 or rows.max() > len(everyone):
            raise DatasetError(
                f"{published}: ls_set: expected a matrix of indices from 1 to {len(everyone)} (number of "
                f"person folders), got shape {rows.shape} or other values; take both from the same release "
                "of iLIDS-VID"
            )
        names = [[everyone[index - 1] for index in row] for row in rows.tolist()]
        return [{"train": row[len(row) // 2 :], "test": row[: len(row) // 2]} for row in names]

    splits, source = _splits("ilids", base, both, split_seed, read if published.is_file() else None)
    return _dataset("ilids", "iLIDS-VID", base, cameras, both, splits, source, split, screen, 1)


@register_dataset("prid")
def prid(
    root: str | os.PathLike[str],
    *,
    split: int = 0,
    split_seed: int | None = None,
    min_frames: int = 28,
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read the multi-shot version of PRID2011; queries from cam_a, gallery from cam_b.

    178 people have more than 27 frames in both cameras; 89 of them are used for training.

    Args:
        root: folder with the layout above.
        split, split_seed: see `ilids`.
        min_frames: people with fewer frames in either camera are ignored.
        check: see `build_dataset`.
        on_error: see `build_dataset`. "skip" excludes people without two usable tracklets.

    Raises:
        DatasetError: a folder or file is missing, empty or inconsistent with the others. The message names
            it.
        ValueError: an invalid option.
    """
    base = find_root(root, "prid_2011/ and splits_prid2011.json", ("prid_2011/multi_shot",))
    screen = Screen(check, on_error)
    cameras = [_camera(base / "prid_2011" / "multi_shot" / name, screen) for name in ("cam_a", "cam_b")]
    people = [set(camera.people) for camera in cameras]
    # The protocol excludes the people that only one camera shows, which are the majority.
    used = [
        person for person in sorted(people[0] & people[1])
        if all(len(list_folder(camera.people[person]).images) >= min_frames for camera in cameras)
    ]  # fmt: skip
    for person in sorted((people[0] | people[1]) - set(used)):
        screen.ignore(f"persons without {min_frames} frames in both cameras", person)
    if not used:
        raise DatasetError(
            f"{cameras[0].path.parent}: expected people with at least {min_frames} frames in both cameras, "
            "got none; restore the images of PRID2011 or lower min_frames"
        )
    published = base / "splits_prid2011.json"
    read = (lambda: _read_splits(published)) if published.is_file() else None
    splits, source = _splits("prid", base, used, split_seed, read)
    return _dataset("prid", "PRID2011", base, cameras, used, splits, source, split, screen, min_frames)


def draw_splits(people: Sequence[str], seed: int) -> list[Split]:
    """Draw ten random splits into halves. They depend only on the set of names and the seed.

    If the number of people is odd, the training half is larger by one.
    """
    ordered, half = sorted(people), len(people) // 2
    splits = []
    for number in range(SPLITS):
        order = np.random.default_rng([seed, number]).permutation(len(ordered))
        names = [ordered[index] for index in order]
        splits.append({"train": sorted(names[half:]), "test": sorted(names[:half])})
    return splits


class _Camera(NamedTuple):
    """The folder of a camera and its person folders, keyed by NFC name."""

    path: Path
    people: dict[str, Path]

    def folder(self, person: str) -> Path:
        return self.people.get(person, self.path / person)


def _camera(path: Path, screen: Screen) -> _Camera:
    """List the person folders of a camera.

    Names are normalized (NFC), because cameras and split files may encode accents differently.
    """
    people: dict[str, Path] = {}
    for name in screen.folders(path, "folders of persons"):
        folder = people.setdefault(nfc(name), path / name)
        if folder.name != name:
            screen.reject(
                f"{path.name}/{name}",
                f"{path / name}: expected one folder per person, got two with names that differ only in "
                "Unicode normalization",
            )
    return _Camera(path, people)


def _splits(
    name: str, base: Path, people: Sequence[str], seed: int | None, published: Any
) -> tuple[list[Split], str]:
    """The splits, and a description of their source."""
    if seed is None and published is not None:
        return published(), "published splits"
    seed = seed or 0
    path = base / f"splits_{name}_seed{seed}.json"
    if not path.is_file():
        text = json.dumps(draw_splits(people, seed), indent=1) + "\n"
        try:
            with whole_file(path, racing=True) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise DatasetError(
                f"{path}: cannot write the splits drawn from seed {seed} ({error.strerror}); make the folder "
                "writable once, or add the published split file"
            ) from error
    return _read_splits(path), f"splits drawn from seed {seed}"


def _read_splits(path: Path) -> list[Split]:
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        read = [
            {part: [nfc(str(name)) for name in split[part]] for part in ("train", "test")} for split in splits
        ]
        for name in {name for split in read for names in split.values() for name in names}:
            if not is_folder_name(name):
                raise ValueError(f"expected folder names, got {name!r:.60}")
        return read
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f'{path}: expected a list of {{"train": [folders], "test": [folders]}}, got an error: {error}; '
            "restore the file"
        ) from error


def _dataset(
    name: str,
    title: str,
    base: Path,
    cameras: Sequence[_Camera],
    people: Sequence[str],
    splits: Sequence[Split],
    source: str,
    split: int,
    screen: Screen,
    min_frames: int,
) -> TrackletDataset:
    if isinstance(split, bool) or not isinstance(split, int) or not 0 <= split < len(splits):
        raise ValueError(f"split: expected 0 to {len(splits) - 1}, got {split!r}")
    chosen = splits[split]
    shared = set(chosen["train"]) & set(chosen["test"])
    if shared:
        raise DatasetError(
            f"{base}: split {split}: expected disjoint train and test people, got {min(shared)} in both"
        )
    pids = {person: pid for pid, person in enumerate(sorted({*chosen["train"], *chosen["test"]}), start=1)}
    pairs: dict[str, list[tuple[Tracklet, Tracklet]]] = {}
    for person in people:
        if person not in pids:
            screen.ignore(f"persons not in split {split}", person)
    for part, persons in chosen.items():
        pairs[part] = []
        for person in sorted(persons):
            try:
                first, second = (
                    screen.usable(_tracklet(camera, person, pids[person], camid, min_frames, screen))
                    for camid, camera in enumerate(cameras, start=1)
                )
            except DatasetError as error:
                screen.reject(person, str(error))
                continue
            if first is not None and second is not None:
                pairs[part].append((first, second))
    skipped = screen.finish()
    for part, kept in pairs.items():
        if not kept:
            raise DatasetError(f"{base}: split {split}: expected usable {part} people, got none")
    return TrackletDataset(
        name=name,
        root=os.fspath(base),
        train=[tracklet for pair in pairs["train"] for tracklet in pair],
        query=[pair[0] for pair in pairs["test"]],
        gallery=[pair[1] for pair in pairs["test"]],
        protocol=f"{title}, split {split + 1} of {len(splits)} ({source}), "
        f"{cameras[0].path.name} queries in a {cameras[1].path.name} gallery",
        skipped=skipped,
        ignored=screen.ignored,
    )


def _tracklet(
    camera: _Camera, person: str, pid: int, camid: int, min_frames: int, screen: Screen
) -> Tracklet:
    folder = camera.folder(person)
    images = screen.images(folder)
    if len(images) < max(min_frames, 1):
        raise DatasetError(f"{folder}: expected at least {max(min_frames, 1)} images, got {len(images)}")
    return Tracklet(
        paths=tuple(os.fspath(folder / image) for image in images),
        pid=pid,
        camid=camid,
        name=f"{camera.path.name}/{person}",
    )
