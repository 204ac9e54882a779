"""Survey of a folder of tracklets: the facts on which the settings of a recipe depend."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vreid_ext.data import DatasetError, Tracklet, TrackletDataset, build_dataset
from vreid_ext.data.detect import detect_dataset
from vreid_ext.engine.comparison import Comparison

_SIZES = 200  # images whose size is read
_SPLIT = 0.5  # fraction of the persons for training, if the folder has no splits

_FEW = (
    "The same persons train and test, because there are too few to divide: the figures show that the system "
    "works, not how well it finds persons that it has not seen."
)
_ONE_CAMERA = (
    "There is one camera, so every tracklet is compared with the other tracklets of the same camera. This is "
    "easier than a search across cameras, and the figures of the two cannot be compared."
)


@dataclass(frozen=True)
class Survey:
    """What a folder contains.

    Attributes:
        data: the data set, with the split that the recipe uses.
        options: options of the data set in the recipe.
        heights, widths: smallest, median and largest size of the images in pixels, from about 200 images.
        lengths: smallest, lower quartile, median and largest number of frames of a training tracklet.
        persons: number of training persons.
        per_person: median number of training tracklets of a person.
        matched: number of queries with a match in the gallery.
        cameras: number of cameras of the test tracklets; 1 if every tracklet counts as a camera of its own.
        notes: sentences about limits of the data.
    """

    data: TrackletDataset
    options: dict[str, Any]
    heights: tuple[int, int, int]
    widths: tuple[int, int, int]
    lengths: tuple[int, int, int, int]
    persons: int
    per_person: int
    matched: int
    cameras: int
    notes: tuple[str, ...]


def survey(root: str | os.PathLike[str]) -> Survey:
    """Look at a folder of tracklets in any of the known layouts.

    If a folder has no splits, half of the persons are for training, provided that there are at least four
    and that a query of the others has a match.

    Raises:
        DatasetError: unknown layout (see `data.detect.detect_dataset`), fewer than two persons for training,
            no query with a match in the gallery, so that nothing can be evaluated, or an unreadable image.
    """
    data = detect_dataset(root)
    persons = {tracklet.pid for split in (data.train, data.query, data.gallery) for tracklet in split}
    if len(persons) < 2:
        raise DatasetError(
            f"root: expected tracklets of at least two persons, got one person in {root}, read as "
            f"{data.name} ({len(data.train)} tracklets, the first is {data.train[0].name}). If these are "
            "several persons, use the folder that contains one folder per person"
        )
    matched = Comparison(data).count_matched()
    if not matched:
        raise DatasetError(_without_match(data))
    options: dict[str, Any] = {"on_error": "skip"} if data.skipped else {}
    notes = []
    if data.train == data.query == data.gallery:  # no splits
        halves = _halves(data, options) if len(persons) > 3 else None
        if halves is None:
            notes.append(_FEW)
        else:
            options["split"] = _SPLIT
            data, matched = halves, Comparison(halves).count_matched()
    tracklets_of = Counter(tracklet.pid for tracklet in data.train)
    if len(tracklets_of) < 2:
        raise DatasetError(f"root: expected at least two persons for training, got one in {root}")
    cameras = len({tracklet.camid for tracklet in (*data.query, *data.gallery)})
    if "one camera" in data.protocol:
        cameras = 1
        notes.append(_ONE_CAMERA)
    if data.skipped:
        notes.append(f"{len(data.skipped)} tracklets cannot be used; `vreid data` lists them.")
    heights, widths = _sizes([*data.train, *data.query])
    smallest, lower, median, largest = np.quantile(
        [len(tracklet) for tracklet in data.train], (0, 0.25, 0.5, 1), method="lower"
    ).tolist()
    return Survey(
        data=data,
        options=options,
        heights=heights,
        widths=widths,
        lengths=(smallest, lower, median, largest),
        persons=len(tracklets_of),
        per_person=int(np.median(list(tracklets_of.values()))),
        matched=matched,
        cameras=cameras,
        notes=tuple(notes),
    )


def _halves(data: TrackletDataset, options: dict[str, Any]) -> TrackletDataset | None:
    """The data set with half of the persons for training; None if the others have no match."""
    halves = build_dataset(data.name, data.root, split=_SPLIT, **options)
    return halves if Comparison(halves).count_matched() else None


def _without_match(data: TrackletDataset) -> str:
    tracklets = {tracklet.paths: tracklet for tracklet in (*data.query, *data.gallery)}.values()
    if max(Counter(tracklet.pid for tracklet in tracklets).values()) == 1:
        return (
            f"root: expected persons with at least two tracklets, got {len(tracklets)} tracklets of as many "
            f"persons in {data.root}: no query has a match. Name the persons (`vreid tracklets --boxes`), or "
            "use a trained model (`vreid extract`, `vreid search`)"
        )
    return (
        f"root: expected queries with a match from another camera, got none in {data.root}, read as "
        f"{data.name}: its protocol ignores the tracklets of the query's person and camera. If there is only "
        "one camera, use the layout of tracklet_folder without camera folders"
    )


def _sizes(tracklets: Sequence[Tracklet]) -> list[tuple[int, int, int]]:
    """Smallest, median and largest height, then width. Only the headers of the files are read."""
    sizes = []
    for tracklet in tracklets[:: max(1, len(tracklets) // _SIZES)]:
        path = tracklet.paths[len(tracklet) // 2]
        try:
            with Image.open(path) as image:
                sizes.append((image.height, image.width))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DatasetError(f"{path}: cannot read the size of this image ({error})") from error
    return [(min(side), int(np.median(side)), max(side)) for side in zip(*sizes)]
