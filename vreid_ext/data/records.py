"""Tracklets and the data sets made of them: the two records every loader returns and every consumer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

from torch import Tensor

SPLITS = ("train", "query", "gallery")
_SHOWN = 10  # skipped tracklets in a summary


class DatasetError(ValueError):
    """A data set on disk is not what its loader expects; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Tracklet:
    """The crops of one person from one camera, in the order of time.

    Attributes:
        paths: image files, at least one.
        pid: identity, an int64; in MARS 0 stands for all distractors.
        camid: camera number as the data set writes it, an int64.
        name: for lists and pictures; joints files know a tracklet by it.
        attributes: class index of each attribute (`read_attributes`), None if unlabelled.
        joints: (n,14,3) x, y in pixels and confidence of each frame's joints (`attach_joints`), or None.
    """

    paths: tuple[str, ...]
    pid: int
    camid: int
    name: str
    attributes: Mapping[str, int] | None = None
    joints: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.paths, str):
            raise TypeError(f"paths: expected a tuple of image files, got the text {self.paths!r:.80}")
        if not self.paths:
            raise ValueError(f"paths: expected at least one image, got none (tracklet {self.name!r:.80})")
        for key in ("pid", "camid"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{key}: expected an integer, got {value!r:.80} (tracklet {self.name!r:.80})")
            if not -(2**63) <= int(value) < 2**63:
                raise ValueError(
                    f"{key}: expected an integer of 64 bits, got {value!r:.80} (tracklet {self.name!r:.80})"
                )

    def __repr__(self) -> str:
        frames = f"{len(self)} frames from {self.paths[0]!r}"
        return f"Tracklet({self.name!r}, pid {self.pid}, camid {self.camid}, {frames})"

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.paths)


@dataclass(slots=True, repr=False)
class TrackletDataset:
    """Three lists of tracklets and the rules under which they are to be evaluated.

    Attributes:
        name: registered name.
        root: folder it was read from.
        train: training tracklets.
        query: query tracklets.
        gallery: gallery tracklets.
        protocol: one sentence that belongs beside every number measured on this set: which gallery, which
            split.
        junk: whether gallery tracklets with the query's pid *and* camera are ignored in evaluation.
        skipped: with on_error="skip", one line for each tracklet left out, saying why.
        ignored: one line for each kind of file or folder that is no part of the set, with count and example.

    `print` writes the table of `summary`.
    """

    name: str
    root: str
    train: list[Tracklet]
    query: list[Tracklet]
    gallery: list[Tracklet]
    protocol: str
    junk: bool = True
    skipped: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, split))} {split}" for split in SPLITS)
        return f"TrackletDataset({self.name!r}, {self.root!r}, {sizes})"

    def __str__(self) -> str:
        return self.summary()

    @property
    def labels(self) -> dict[int, int]:
        """Class number 0 .. N-1 of every training pid, in ascending order of pid."""
        return {pid: label for label, pid in enumerate(sorted({t.pid for t in self.train}))}

    @property
    def num_train_pids(self) -> int:
        """Number of training identities N: the width of the classifier."""
        return len({t.pid for t in self.train})

    def by_name(self) -> dict[str, Tracklet]:
        """Every tracklet once, by its name, for what is kept beside the data under that name.

        Raises:
            DatasetError: two tracklets of different images have one name.
        """
        named: dict[str, Tracklet] = {}
        for tracklet in (*self.train, *self.query, *self.gallery):
            if named.setdefault(tracklet.name, tracklet).paths != tracklet.paths:
                raise DatasetError(
                    f"{self.root}: expected a name of its own for every tracklet, got {tracklet.name!r} for "
                    f"{named[tracklet.name].paths[0]} and for {tracklet.paths[0]}"
                )
        return named

    def counts(self) -> dict[str, dict[str, int]]:
        """Persons, tracklets, frames and cameras of train, query and gallery."""
        return {split: _counts(getattr(self, split)) for split in SPLITS}

    def summary(self) -> str:
        """A small table: `counts`, the protocol, what was skipped (the first ten) and what was ignored."""
        lines = [
            f"{self.name} at {self.root}",
            f"{'split':<9}{'persons':>9}{'tracklets':>11}{'frames':>10}{'cameras':>9}",
        ]
        for split, counts in self.counts().items():
            lines.append("{:<9}{persons:>9}{tracklets:>11}{frames:>10}{cameras:>9}".format(split, **counts))
        lines.append(f"protocol: {self.protocol}")
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} tracklets:")
            lines += [f"  {reason}" for reason in self.skipped[:_SHOWN]]
            if len(self.skipped) > _SHOWN:
                lines.append(f"  and {len(self.skipped) - _SHOWN} more")
        if self.ignored:
            lines += ["ignored:", *(f"  {line}" for line in self.ignored)]
        return "\n".join(lines)


def _counts(tracklets: Sequence[Tracklet]) -> dict[str, int]:
    return {
        "persons": len({t.pid for t in tracklets}),
        "tracklets": len(tracklets),
        "frames": sum(map(len, tracklets)),
        "cameras": len({t.camid for t in tracklets}),
    }
