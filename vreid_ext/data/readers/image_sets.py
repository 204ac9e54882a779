"""Image sets, Market-1501 and CUHK03, as tracklets of one frame or of a person's images by a camera."""

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
    """An image of a person by a camera; `order` is its place among them."""

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

    or that in ROOT/Market-1501-v15.09.15. Person 0000 are distractors, kept as negatives; -1 is junk and left
    out. MARS shows the same people: a model trained on one knows those of the other.

    Args:
        root: folder of the layout above.
        images: "single", every image a tracklet of one frame: the set's own protocol. "camera", the images of
            a person by a camera, in the order of sequence and frame, as one tracklet, but each distractor by
            itself.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: naming the folder or file that is missing, empty or named otherwise.
        ValueError: a bad option.
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
                raise DatasetError(f"{base / folder / name}: no image name like 0002_c1s1_000451_03.jpg")
            pid, camid, *order = map(int, match.groups()[:5])
            if pid >= 0:
                found.append(_Image(pid, camid, tuple(order), os.fspath(base / folder / name)))
        if not found:
            raise DatasetError(f"{base / folder}: an empty folder, no images of people in it")
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

        ROOT/images_detected/1_001_1_01.png, ROOT/images_labeled/...       pair, person, camera of it, image
        ROOT/cuhk03_new_protocol_config_detected.mat, ..._labeled.mat      for protocol "new"
        ROOT/cuhk-03.mat, or cuhk03_release/cuhk-03.mat                    for protocol "classic" (h5py)

    Args:
        root: folder of the layout above.
        boxes: whose boxes, those of a detector or of hands.
        protocol: "new" (Zhong et al., CVPR 2017): 767 people train, 700 test, a query for each camera.
            "classic" (Li et al.): 100 people test, the others train; queries are all images of the first
            camera, the gallery is one image of each person by the second, drawn with the split.
        split: 0 to 19, for "classic".
        split_seed: draw the splits of "classic" from this seed and keep them in
            ROOT/splits_cuhk03_seed<N>.json; None: the published ones, or those of seed 0 where their file,
            cuhk-03.mat, is missing.
        images: "single", every image a tracklet of one frame; "camera", those of a person by a camera as one.
        check, on_error: see `build_dataset`.

    Raises:
        DatasetError: naming the folder or file that is missing, empty, named otherwise or inconsistent.
        ValueError: a bad option.
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
        said = "767 / 700 protocol"
    else:
        files = [base / "cuhk-03.mat", base / "cuhk03_release" / "cuhk-03.mat"]
        published = next((path for path in files if path.is_file()), None)
        if split_seed is None and published is not None:
            test, source = _published_people(everything, published, split), "published"
        else:
            test = _drawn_people(everything, base, split, split_seed or 0)
            source = f"drawn from seed {split_seed or 0}"
        parts = _classic_protocol(everything, test, np.random.default_rng([split_seed or 0, split, 1]))
        said = (
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
        protocol=f"CUHK03 {boxes}, {said}, {_HOW[images]}",
        skipped=screen.finish(),
    )


_HOW = {
    "single": "every image by itself",
    "camera": "the images of a person by a camera as one tracklet",
}


def _choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def _tracklets(images: Iterable[_Image], how: Images) -> list[Tracklet]:
    """One for each image, or for each person and camera; the order is that of pid, camera and image."""
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
    """All images in the order of pair, person, camera and number; pids count people in that order from 1."""
    found: list[tuple[int, int, int, int, str]] = []
    for name in list_folder(folder)[1]:
        match = _CUHK.fullmatch(name)
        if match is None:
            raise DatasetError(f"{folder / name}: no image name like 1_001_1_01.png")
        pair, person, camera, number = map(int, match.groups())
        found.append((pair, person, camera, number, os.fspath(folder / name)))
    if not found:
        raise DatasetError(f"{folder}: an empty folder, no images in it")
    people = {person: pid for pid, person in enumerate(sorted({entry[:2] for entry in found}), start=1)}
    return [
        _Image(people[pair, person], 2 * (pair - 1) + camera, (number,), path)
        for pair, person, camera, number, path in sorted(found)
    ]


def _new_protocol(images: Sequence[_Image], path: Path) -> list[list[_Image]]:
    """Train, query and gallery: the file numbers the images in their order, and says who and which camera."""
    if not path.is_file():
        raise DatasetError(f"{path}: is missing; it is published with the code of Zhong et al. (CVPR 2017)")
    labels, cameras, *indices = (
        load_matrix(path, key).ravel().astype(np.int64)
        for key in ("labels", "camId", "train_idx", "query_idx", "gallery_idx")
    )
    if len(labels) != len(images):
        raise DatasetError(f"{path}: is of {len(labels)} images, there are {len(images)}; restore the images")
    for image, label, camera in zip(images, labels.tolist(), cameras.tolist(), strict=True):
        if (image.pid, (image.camid - 1) % 2 + 1) != (label, camera):
            raise DatasetError(
                f"{path}: has person {label}, camera {camera} where {image.path} is; restore the images"
            )
    parts = []
    for name, index in zip(("train_idx", "query_idx", "gallery_idx"), indices, strict=True):
        if not len(index) or index.min() < 1 or index.max() > len(images):
            raise DatasetError(f"{path}: {name} has numbers outside 1 to {len(images)}; restore it")
        parts.append([images[number - 1] for number in index.tolist()])
    return parts


def _published_people(images: Sequence[_Image], path: Path, split: int) -> set[int]:
    """Pids of the test people: "testsets" is a cell of twenty matrices with the rows (pair, person)."""
    import h5py

    try:
        with h5py.File(path) as file:
            rows = file[file["testsets"][0, split]][()].T.astype(np.int64)
            named = {(pair, person) for pair, person in rows.tolist()}
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        raise DatasetError(
            f"{path}: expected HDF5 with {CLASSIC_SPLITS} matrices in testsets, got {error}; restore it"
        ) from error
    pids = {tuple(map(int, Path(image.path).name.split("_")[:2])): image.pid for image in images}
    missing = len(named - pids.keys())
    if missing or not named:
        raise DatasetError(
            f"{path}: split {split} names {missing} people without an image; restore the images"
        )
    return {pids[place] for place in named}


def _drawn_people(images: Sequence[_Image], base: Path, split: int, seed: int) -> set[int]:
    """Pids of 100 test people, fewer in a smaller set."""
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
                f"{path}: cannot keep the splits drawn from seed {seed} ({error.strerror}); make the folder "
                "writable once"
            ) from error
    try:
        chosen = {int(pid) for pid in json.loads(path.read_text(encoding="utf-8"))[split]}
    except (OSError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise DatasetError(f"{path}: is no list of {CLASSIC_SPLITS} lists of people ({error})") from error
    if not chosen or chosen - set(people):
        raise DatasetError(f"{path}: split {split} names people who are not there; remove it to draw anew")
    return chosen


def _classic_protocol(
    images: Sequence[_Image], chosen: set[int], rng: np.random.Generator
) -> list[list[_Image]]:
    """Train, query and gallery for some test people."""
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
