"""The features and pictures that the checks examine."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext import _checks, ops
from vreid_ext.data import Tracklet
from vreid_ext.distributed import default_device
from vreid_ext.engine.build import one_dataset_of
from vreid_ext.engine.comparison import Comparison, metric_of
from vreid_ext.engine.doctor.finding import Skipped
from vreid_ext.engine.extract import extract_features
from vreid_ext.engine.features import extraction, parts, stored_features
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Recipe
from vreid_ext.features.rows import Features, Rows
from vreid_ext.features.stored import StoredFeatures

SAMPLE = 20_000  # default number of tracklets that are compared with each other
# Data sets in which pid 0 stands for many persons.
_DISTRACTORS = ("mars", "market1501")
_FEW = 8  # persons in a camera; with fewer, the mean of the camera is mostly that of these persons
_COPY = 2.0**-13  # difference of two features of the same pictures, relative to their length


class Seen(NamedTuple):
    """One tracklet: what its label says."""

    name: str
    pid: int
    camid: int


class Scan(NamedTuple):
    """What one pass over all rows yields.

    Attributes:
        least, most: (D,) smallest and largest value of each dimension, over the finite rows.
        not_finite, zero: numbers of rows with NaN or infinity, and of rows that are zero.
        usable: (N,) bool, the other rows.
    """

    least: Tensor
    most: Tensor
    not_finite: list[int]
    zero: list[int]
    usable: Tensor


class Sample(NamedTuple):
    """Features of persons with a label, small enough to be compared with each other.

    Attributes:
        rows: (n,D) float32: of length 1 for the cosine metric, else as they are.
        centred: (n,D): rows minus the mean of their camera, in which every person counts once.
        number: (n,) number of each row in `Subject.tracklets`.
        pids, camids: (n,) persons and cameras, numbered from 0.
    """

    rows: Tensor
    centred: Tensor
    number: Tensor
    pids: Tensor
    camids: Tensor

    @property
    def persons(self) -> int:
        return int(self.pids.max()) + 1

    @property
    def cameras(self) -> int:
        return int(self.camids.max()) + 1

    def of_person(self, person: int) -> Tensor:
        return (self.pids == person).nonzero()[:, 0]


class Nearest(NamedTuple):
    """Distance of each row of a sample to the nearest row of another person, and that row."""

    distance: Tensor
    row: Tensor


@dataclass
class Subject:
    """Features with their labels and, for a run, its model and its pictures.

    Attributes:
        name: what is examined.
        features: (N,D) of the test tracklets.
        tracklets: labels of these N, followed by those of the training tracklets if there are any.
        metric: "cosine" or "euclidean"; None: the model has its own distance.
        distractor: the pid that stands for many persons, or None.
        records: the tracklets with their images, in the order of `tracklets`; empty without pictures.
        model, recipe: of a run.
        limit: number of tracklets that are compared with each other; whole persons are drawn from seed 0.
        progress: called as `progress(images_done, images)` while the files are read.
    """

    name: str
    features: Features
    tracklets: list[Seen]
    metric: str | None
    distractor: int | None = None
    records: Sequence[Tracklet] = ()
    model: nn.Module | None = None
    recipe: Recipe | None = None
    limit: int = SAMPLE
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        _checks.integer("limit", self.limit, 1)

    @property
    def test(self) -> list[Seen]:
        return self.tracklets[: len(self.features)]

    @cached_property
    def scan(self) -> Scan:
        count, width = self.features.shape
        least = torch.full((width,), torch.inf, dtype=torch.float64)
        most = -least
        finite, zero = (torch.zeros(count, dtype=torch.bool) for _ in range(2))
        for first, piece in self.features.pieces():
            piece = piece.cpu()
            good = piece.isfinite().all(1)
            finite[first : first + len(piece)] = good
            zero[first : first + len(piece)] = (piece == 0).all(1)
            if good.any():
                low, high = piece[good].double().aminmax(dim=0)
                least, most = torch.minimum(least, low), torch.maximum(most, high)
        bad = (~finite).nonzero()[:, 0].tolist()
        return Scan(least, most, bad, zero.nonzero()[:, 0].tolist(), finite & ~zero)

    @cached_property
    def sample(self) -> Sample:
        """At most `limit` usable rows of whole persons, without pid -1 and distractors.

        Raises:
            Skipped: the model has its own distance, or there are fewer than two persons.
        """
        if self.metric is None:
            raise Skipped("the model has its own distance function")
        pids = torch.tensor([each.pid for each in self.test], dtype=torch.int64)
        known = self.scan.usable & (pids != -1)
        if self.distractor is not None:
            known &= pids != self.distractor
        index = known.nonzero()[:, 0]
        if len(index) > self.limit:
            persons, person = pids[index].unique(return_inverse=True)
            order = torch.randperm(len(persons), generator=torch.Generator().manual_seed(0))
            sizes = torch.bincount(person)[order].cumsum(0)
            kept = torch.zeros(len(persons), dtype=torch.bool)
            kept[order[: max(1, int((sizes <= self.limit).sum()))]] = True
            index = index[kept[person]]
        persons, person = pids[index].unique(return_inverse=True)
        if len(persons) < 2:
            raise Skipped(f"needs tracklets of at least 2 persons, got {len(persons)}")
        camids = torch.tensor([each.camid for each in self.test], dtype=torch.int64)[index]
        rows = self.features[index].float()
        if self.metric == "cosine":
            rows = F.normalize(rows, dim=1)
        camera = camids.unique(return_inverse=True)[1]
        return Sample(rows, _centred(rows, person, camera), index, person, camera)

    @cached_property
    def strangers(self) -> Nearest:
        """The nearest row of another person, for each row of the sample."""
        sample = self.sample
        order = sample.pids.argsort(stable=True)
        sizes = torch.bincount(sample.pids)
        first = sizes.cumsum(0) - sizes
        own = sizes[sample.pids]
        start = torch.cat([own.new_zeros(1), own.cumsum(0)])
        within = torch.arange(int(start[-1])) - start[:-1].repeat_interleave(own)
        own_rows = order[first[sample.pids].repeat_interleave(own) + within]
        distance, index = ops.top_k(
            sample.rows, sample.rows, 1, self.metric or "cosine", left_out=(start, own_rows)
        )
        return Nearest(distance[:, 0], index[:, 0])

    @cached_property
    def copies(self) -> list[tuple[int, int]]:
        """Pairs of rows of different persons that are equal up to rounding, by number in `tracklets`."""
        sample, nearest = self.sample, self.strangers
        length = sample.rows.norm(dim=1).double()
        limit = _COPY**2 / 2 if self.metric == "cosine" else _COPY * length
        rows = (nearest.distance <= limit).nonzero()[:, 0]
        pairs = {tuple(sorted(sample.number[torch.stack([row, nearest.row[row]])].tolist())) for row in rows}
        return sorted((a, b) for a, b in pairs)

    @cached_property
    def same_files(self) -> list[list[tuple[int, int]]]:
        """Image files with equal content, as lists of (tracklet, frame); only those of several tracklets.

        Raises:
            Skipped: there are no pictures.
        """
        if not self.records:
            raise Skipped("needs the pictures: give the run instead of its features")
        owners = [(number, frame) for number, item in enumerate(self.records) for frame in range(len(item))]

        def digest(owner: tuple[int, int]) -> int:
            path = self.records[owner[0]].paths[owner[1]]
            return int.from_bytes(hashlib.blake2b(Path(path).read_bytes(), digest_size=8).digest(), "little")

        digests = np.empty(len(owners), np.uint64)
        with ThreadPoolExecutor() as pool:
            for done, value in enumerate(pool.map(digest, owners, chunksize=64)):
                digests[done] = value
                if self.progress is not None and (done + 1) % 256 == 0:
                    self.progress(done + 1, len(owners))
        order = digests.argsort(kind="stable")
        ends = np.flatnonzero(np.diff(digests[order])) + 1
        groups = (group for group in np.split(order, ends) if len(group) > 1)
        found = [[owners[place] for place in group] for group in groups]
        return [each for each in found if len({number for number, _ in each}) > 1]

    def known(self, number: int) -> bool:
        """Whether the pid of a tracklet is that of one person."""
        return self.tracklets[number].pid not in (-1, self.distractor)


def of_features(folder: str | os.PathLike[str], *, limit: int = SAMPLE) -> Subject:
    """The features in a folder of `vreid extract`, with verified checksums.

    Raises:
        ValueError: the folder does not exist, is incomplete or damaged, or contains one folder per length.
    """
    stored = StoredFeatures(folder)
    stored.verify()
    tracklets = [Seen(each["name"], each["pid"], each["camid"]) for each in stored.manifest["tracklets"]]
    return Subject(
        str(folder),
        Features("features", stored.rows()),
        tracklets,
        stored.manifest["metric"],
        _distractor(stored.manifest["identity"].get("dataset.name")),
        limit=limit,
    )


def of_run(
    checkpoint: str | Path,
    overrides: Iterable[str] = (),
    *,
    features: Path | None = None,
    limit: int = SAMPLE,
    progress: Callable[[int, int], None] | None = None,
    progress_images: Callable[[int, int], None] | None = None,
) -> Subject:
    """The test features of a run at its first test length, with its model and the pictures of its data set.

    Args:
        checkpoint, overrides, progress: as in `evaluate_checkpoint`.
        features: folder in which the features are stored, as in `evaluate_checkpoint`; None: in memory.
        limit: see `Subject`.
        progress_images: see `Subject.progress`.
    """
    model, recipe, folder = open_checkpoint(checkpoint, overrides)
    data = one_dataset_of(recipe)
    test = Comparison(data)
    device = default_device()
    model.to(device)
    frames = recipe.eval.frames[0]
    rows: Rows
    if features is None:
        options = extraction(model, recipe, test, frames, device, progress)
        rows = parts(model, extract_features(model, test.tracklets, **options))["features"]
    else:
        stored = stored_features(model, test, recipe, frames, features, device=device, progress=progress)
        rows = stored.rows()
    metric = metric_of(model, recipe)
    records = [*test.tracklets, *data.train]
    return Subject(
        f"{recipe.name} on {data.name} ({folder})",
        Features("features", rows),
        [Seen(each.name, each.pid, each.camid) for each in records],
        None if callable(metric) else metric,
        _distractor(data.name),
        records,
        model,
        recipe,
        limit,
        progress_images,
    )


def of_arrays(
    features: Rows,
    pids: Sequence[int],
    camids: Sequence[int],
    *,
    names: Sequence[str] | None = None,
    metric: str = "cosine",
    distractor: int | None = None,
    limit: int = SAMPLE,
) -> Subject:
    """Features (N,D) in memory or in a `.npy` file, with their persons and cameras.

    Args:
        names: name of each row; None: its number.
        metric: "cosine" or "euclidean".
        distractor: the pid that stands for many persons.
        limit: see `Subject`.

    Raises:
        TypeError, ValueError: an argument has the wrong type, value or length.
    """
    rows = Features("features", features)
    _checks.choice("metric", metric, ("cosine", "euclidean"))
    names = [str(number) for number in range(len(rows))] if names is None else names
    for name, values in (("pids", pids), ("camids", camids), ("names", names)):
        if len(values) != len(rows):
            raise ValueError(f"{name}: expected {len(rows)} entries, one for each row, got {len(values)}")
    tracklets = [
        Seen(name, int(pid), int(camid)) for name, pid, camid in zip(names, pids, camids, strict=True)
    ]
    return Subject("features", rows, tracklets, metric, distractor, limit=limit)


def cells(sample: Sample, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means (M,D) of the rows of each person in each camera, with the person and the camera (M,) of each."""
    return _cells(rows, sample.pids, sample.camids)


def _cells(rows: Tensor, pids: Tensor, camids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    number = int(camids.max()) + 1
    keys, cell = (pids * number + camids).unique(return_inverse=True)
    return means(rows, cell), keys // number, keys % number


def means(rows: Tensor, group: Tensor) -> Tensor:
    """Means of the rows of each group, in float64."""
    total = torch.zeros(int(group.max()) + 1, rows.shape[1], dtype=torch.float64)
    total.index_add_(0, group, rows.double())
    return total / torch.bincount(group)[:, None]


def _centred(rows: Tensor, pids: Tensor, camids: Tensor) -> Tensor:
    mean, _, camera = _cells(rows, pids, camids)
    of_camera = means(mean, camera)
    of_camera[torch.bincount(camera) < _FEW] = mean.mean(0)
    return rows - of_camera[camids].float()


def _distractor(dataset: str | None) -> int | None:
    return 0 if dataset in _DISTRACTORS else None
