"""Image data sets (Market-1501, CUHK03) as tracklets: one per image, or one per person and camera."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from vreid_ext._files import whole_file
from vreid_ext.data.readers.files import Check, OnError, Screen, find_root, list_folder
from vreid_ext.data.readers.matlab import load_matrix
from vreid_ext.data.records import DatasetError, Tracklet, TrackletDataset
from vreid_ext.data.registry import register_dataset

Images = Literal["single", "camera"]

_MARKET = re.compile(r"(-1|\d{4})_c(\d)s(\d)_(\d+)_(\d+)\.jpg(\.jpg)?", re.IGNORECASE)
_CUHK = re.compile(r"(\d)_(\d{3})_([12])_(\d\d)\.\w+")
CLASSIC_SPLITS, _CLASSIC_TEST = 20, 100


class _Image(NamedTuple):
    """An image; `order` sorts the images with the same pid and camid."""

    pid: int
    camid: int
    order: tuple[int, ...]
    path: str


@register_dataset("market1501")
def market1501(
    root: str | os.PathLike[str],
    *,
    images: Images = "single",
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read Market-1501 (Zheng et al., ICCV 2015): 751 + 750 people, 6 cameras.

        ROOT/{bounding_box_train,query,bounding_box_test}/0002_c1s1_000451_03.jpg    person, camera, sequence,
                                                                                     frame, box

    or the same folders in ROOT/Market-1501-v15.09.15. Pid 0 (distractors) is kept in the gallery; pid -1
    (junk) is dropped. MARS contains the same people, so do not train on one and test on the other.

    Args:
        root: folder with the layout above.
        images: "single": each image is a tracklet of one frame (protocol of the data set). "camera": the
            images of a person and camera are one tracklet, ordered by sequence and frame; each distractor
            image is still a tracklet of its own.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: a folder or file is missing, empty or has an unexpected name. The message names it.
        ValueError: an invalid option.
    """
    _choice("images", images, get_args(Images))
    screen = Screen(check, on_error)
    folders = ("bounding_box_train", "query", "bounding_box_test")
    inner = Path(root, "Market-1501-v15.09.15")
    base = find_root(
        inner if inner.is_dir() else root,
        "bounding_box_train/, query/ and bounding_box_test/ of Market-1501",
        folders,
    )
    parts = []
    for folder in folders:
        found = []
        for name in list_folder(base / folder)[1]:
            match = _MARKET.fullmatch(name)
            if match is None:
                raise DatasetError(
                    f"{base / folder}: expected image names like 0002_c1s1_000451_03.jpg, got {name!r}"
                )
            pid, camid, *order = map(int, match.groups()[:5])
            if pid >= 0:
                found.append(_Image(pid, camid, tuple(order), os.fspath(base / folder / name)))
        if not found:
            raise DatasetError(f"{base / folder}: expected at least one image of a person, got none")
        parts.append(screen.keep(_tracklets(found, images)))
    return TrackletDataset(
        name="market1501",
        root=os.fspath(root),
        train=parts[0],
        query=parts[1],
        gallery=parts[2],
        protocol=f"Market-1501, its own query and gallery, {_HOW[images]}",
        skipped=screen.finish(),
    )


@register_dataset("cuhk03")
def cuhk03(
    root: str | os.PathLike[str],
    *,
    boxes: Literal["detected", "labeled"] = "detected",
    protocol: Literal["new", "classic"] = "new",
    split: int = 0,
    split_seed: int | None = None,
    images: Images = "single",
    check: Check = "exists",
    on_error: OnError = "raise",
) -> TrackletDataset:
    """Read CUHK03 (Li et al., CVPR 2014): 1,467 people, five pairs of cameras.

        ROOT/images_detected/1_001_1_01.png, ROOT/images_labeled/...       pair, person, camera 1 or 2, image
        ROOT/cuhk03_new_protocol_config_detected.mat, ..._labeled.mat      for protocol "new"
        ROOT/cuhk-03.mat, or cuhk03_release/cuhk-03.mat                    for protocol "classic" (h5py)

    Args:
        root: folder with the layout above.
        boxes: bounding boxes from a detector ("detected") or drawn by hand ("labeled").
        protocol: "new" (Zhong et al., CVPR 2017): 767 people for training, 700 for testing, one query per
            person and camera. "classic" (Li et al.): 100 people for testing, the others for training; queries
            are all images of the first camera, the gallery is one random image of each person from the second
            camera, drawn once per split.
        split: index of the split, 0 to 19; only for "classic".
        split_seed: draw the splits of "classic" from this seed and store them in
            ROOT/splits_cuhk03_seed<N>.json; None: use the published splits, or the splits of seed 0 if
            cuhk-03.mat is missing.
        images: "single": each image is a tracklet of one frame. "camera": the images of a person and camera
            are one tracklet.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: a folder or file is missing, empty, inconsistent or has an unexpected name. The message
            names it.
        ValueError: an invalid option.
    """
    _choice("boxes", boxes, ("detected", "labeled"))
    _choice("protocol", protocol, ("new", "classic"))
    _choice("images", images, get_args(Images))
    if isinstance(split, bool) or not isinstance(split, int) or not 0 <= split < CLASSIC_SPLITS:
        raise ValueError(f"split: expected 0 to {CLASSIC_SPLITS - 1}, got {split!r}")
    screen = Screen(check, on_error)
    base = find_root(root, f"images_{boxes}/ of CUHK03", (f"images_{boxes}",))
    everything = _cuhk_images(base / f"images_{boxes}")
    if protocol == "new":
        path = base / f"cuhk03_new_protocol_config_{boxes}.mat"
        parts = _new_protocol(everything, path)
        description = "767 / 700 protocol"
    else:
        files = [base / "cuhk-03.mat", base / "cuhk03_release" / "cuhk-03.mat"]
        published = next((path for path in files if path.is_file()), None)
        if split_seed is None and published is not None:
            test, source = _published_people(everything, published, split), "published"
        else:
            test = _drawn_people(everything, base, split, split_seed or 0)
            source = f"drawn from seed {split_seed or 0}"
        parts = _classic_protocol(everything, test, np.random.default_rng([split_seed or 0, split, 1]))
        description = (
            f"classic protocol, split {split + 1} of {CLASSIC_SPLITS} ({source}), one gallery image of each "
            "person"
        )
    train, query, gallery = (screen.keep(_tracklets(part, images)) for part in parts)
    return TrackletDataset(
        name="cuhk03",
        root=os.fspath(root),
        train=train,
        query=query,
        gallery=gallery,
        protocol=f"CUHK03 {boxes}, {description}, {_HOW[images]}",
        skipped=screen.finish(),
    )


_HOW = {
    "single": "one tracklet per image",
    "camera": "one tracklet per person and camera",
}


def _choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def _tracklets(images: Iterable[_Image], how: Images) -> list[Tracklet]:
    """One tracklet per image, or per person and camera, sorted by pid, camera and image."""
    groups: dict[tuple[object, ...], list[_Image]] = {}
    for image in sorted(images):
        together = how == "camera" and image.pid > 0
        groups.setdefault((image.pid, image.camid) if together else image, []).append(image)
    tracklets = []
    for group in groups.values():
        pid, camid, _, path = group[0]
        name = Path(path).stem if len(group) == 1 else f"{pid:04d}_c{camid}"
        tracklets.append(Tracklet(tuple(image.path for image in group), pid, camid, name))
    return tracklets


def _cuhk_images(folder: Path) -> list[_Image]:
    """All images, sorted by camera pair, person, camera and number. Pids count the people from 1."""
    found: list[tuple[int, int, int, int, str]] = []
    for name in list_folder(folder)[1]:
        match = _CUHK.fullmatch(name)
        if match is None:
            raise DatasetError(f"{folder}: expected image names like 1_001_1_01.png, got {name!r}")
        pair, person, camera, number = map(int, match.groups())
        found.append((pair, person, camera, number, os.fspath(folder / name)))
    if not found:
        raise DatasetError(f"{folder}: expected at least one image, got an empty folder")
    people = {person: pid for pid, person in enumerate(sorted({entry[:2] for entry in found}), start=1)}
    return [
        _Image(people[pair, person], 2 * (pair - 1) + camera, (number,), path)
        for pair, person, camera, number, path in sorted(found)
    ]


def _new_protocol(images: Sequence[_Image], path: Path) -> list[list[_Image]]:
    """Train, query and gallery images.

    The protocol file indexes the images (from 1) in the order of `_cuhk_images`. Its labels and cameras are
    compared with those in the file names.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; it is published with the code of Zhong et al. (CVPR 2017)")
    labels, cameras, *indices = (
        load_matrix(path, key).ravel().astype(np.int64)
        for key in ("labels", "camId", "train_idx", "query_idx", "gallery_idx")
    )
    if len(labels) != len(images):
        raise DatasetError(
            f"{path}: expected labels of {len(images)} images, got {len(labels)}; restore the images"
        )
    for image, label, camera in zip(images, labels.tolist(), cameras.tolist(), strict=True):
        if (image.pid, (image.camid - 1) % 2 + 1) != (label, camera):
            raise DatasetError(
                f"{path}: expected person {image.pid}, camera {(image.camid - 1) % 2 + 1} for {image.path}, "
                f"got person {label}, camera {camera}; restore the images"
            )
    parts = []
    for name, index in zip(("train_idx", "query_idx", "gallery_idx"), indices, strict=True):
        if not len(index) or index.min() < 1 or index.max() > len(images):
            raise DatasetError(
                f"{path}: {name}: expected at least one index, all from 1 to {len(images)}; restore the file"
            )
        parts.append([images[number - 1] for number in index.tolist()])
    return parts


def _published_people(images: Sequence[_Image], path: Path, split: int) -> set[int]:
    """Pids of the test people. "testsets" is a cell array of 20 matrices with rows (pair, person)."""
    import h5py

    try:
        with h5py.File(path) as file:
            rows = file[file["testsets"][0, split]][()].T.astype(np.int64)
            chosen = {(pair, person) for pair, person in rows.tolist()}
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        raise DatasetError(
            f"{path}: expected an HDF5 file with {CLASSIC_SPLITS} matrices in 'testsets', got an error: "
            f"{error}; restore the file"
        ) from error
    pids = {tuple(map(int, Path(image.path).name.split("_")[:2])): image.pid for image in images}
    missing = len(chosen - pids.keys())
    if missing or not chosen:
        raise DatasetError(
            f"{path}: split {split}: expected images of all {len(chosen)} test people, got none for "
            f"{missing} of them; restore the images"
        )
    return {pids[key] for key in chosen}


def _drawn_people(images: Sequence[_Image], base: Path, split: int, seed: int) -> set[int]:
    """Pids of 100 random test people, or of half of the people if there are fewer than 200."""
    people = sorted({image.pid for image in images})
    test = min(_CLASSIC_TEST, len(people) // 2)
    path = base / f"splits_cuhk03_seed{seed}.json"
    if not path.is_file():
        drawn = [
            sorted(np.random.default_rng([seed, number]).permutation(people)[:test].tolist())
            for number in range(CLASSIC_SPLITS)
        ]
        try:
            with whole_file(path, racing=True) as temporary:
                temporary.write_text(json.dumps(drawn) + "\n", encoding="utf-8")
        except OSError as error:
            raise DatasetError(
                f"{path}: cannot write the splits drawn from seed {seed} ({error.strerror}); make the folder "
                "writable once"
            ) from error
    try:
        chosen = {int(pid) for pid in json.loads(path.read_text(encoding="utf-8"))[split]}
    except (OSError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise DatasetError(
            f"{path}: expected {CLASSIC_SPLITS} lists of pids, got an error: {error}; "
            "delete the file to draw new splits"
        ) from error
    if not chosen or chosen - set(people):
        raise DatasetError(
            f"{path}: split {split}: expected pids that have images, got {sorted(chosen - set(people))[:5]}; "
            "delete the file to draw new splits"
        )
    return chosen


def _classic_protocol(
    images: Sequence[_Image], chosen: set[int], rng: np.random.Generator
) -> list[list[_Image]]:
    """Train, query and gallery images for the test people `chosen`."""
    first, second = ([image for image in images if image.camid % 2 == side] for side in (1, 0))
    gallery = []
    for pid in sorted(chosen):
        seen = [image for image in second if image.pid == pid]
        if seen:
            gallery.append(seen[int(rng.integers(len(seen)))])
    return [
        [image for image in images if image.pid not in chosen],
        [image for image in first if image.pid in chosen],
        gallery,
    ]
