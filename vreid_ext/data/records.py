"""`Tracklet` and `TrackletDataset`: the records that all data set readers return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal

from torch import Tensor

SPLITS = ("train", "query", "gallery")
_SHOWN = 10  # number of skipped tracklets that a summary lists


class DatasetError(ValueError):
    """A data set on disk cannot be read. The message names the file and says how to fix it."""


@dataclass(frozen=True, slots=True)
class Tracklet:
    """A sequence of crops of one person from one camera, in temporal order.

    Attributes:
        paths: image files, at least one.
        pid: identity, in the range of int64. In MARS all distractors have pid 0.
        camid: camera number used by the data set, in the range of int64.
        name: name shown in lists and figures; also the key of the tracklet in a joints file.
        attributes: class index of each attribute (`read_attributes`), or None if unlabeled.
        joints: (n,14,3) x and y in pixels and confidence of the joints in each of the n frames
            (`attach_joints`), or None.
        images: for each frame, its image (3,h,w) uint8 RGB in memory, or None to read the file. `paths` then
            only names the frames that are in memory. None: read all files.
        tags: further labels that an evaluation may compare, in the range of int64, e.g. {"clothes": 3}.
    """

    paths: tuple[str, ...]
    pid: int
    camid: int
    name: str
    attributes: Mapping[str, int] | None = None
    joints: Tensor | None = field(default=None, repr=False, compare=False)
    images: tuple[Tensor | None, ...] | None = field(default=None, repr=False, compare=False)
    tags: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.paths, str):
            raise TypeError(f"paths: expected a tuple of image files, got the string {self.paths!r:.80}")
        if not self.paths:
            raise ValueError(f"paths: expected at least one image, got none (tracklet {self.name!r:.80})")
        if self.images is not None and len(self.images) != len(self.paths):
            raise ValueError(
                f"images: expected one entry for each of {len(self.paths)} paths, got {len(self.images)} "
                f"(tracklet {self.name!r:.80})"
            )
        for key, value in (("pid", self.pid), ("camid", self.camid), *self.tags.items()):
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{key}: expected an integer, got {value!r:.80} (tracklet {self.name!r:.80})")
            if not -(2**63) <= int(value) < 2**63:
                raise ValueError(
                    f"{key}: expected a 64-bit integer, got {value!r:.80} (tracklet {self.name!r:.80})"
                )

    def __repr__(self) -> str:
        frames = f"{len(self)} frames from {self.paths[0]!r}"
        return f"Tracklet({self.name!r}, pid {self.pid}, camid {self.camid}, {frames})"

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.paths)


@dataclass(slots=True, repr=False)
class TrackletDataset:
    """Training, query and gallery tracklets of a data set and its evaluation protocol.

    Attributes:
        name: registered name.
        root: folder from which the data set was read.
        train: training tracklets.
        query: query tracklets.
        gallery: gallery tracklets.
        protocol: one sentence that describes the gallery and the split. Report it with every metric measured
            on this data set.
        junk: whether evaluation ignores gallery tracklets with both the pid and the camera of the query.
        junk_tags: tags by which evaluation also ignores gallery tracklets with the pid of the query: those
            with the "same" or with any "other" value. {"clothes": "same"} is the clothes-changing setting.
        skipped: with on_error="skip", one line for each excluded tracklet with the reason.
        ignored: one line for each kind of file or folder that does not belong to the data set, with the
            count and an example.

    `print(dataset)` prints `summary()`.
    """

    name: str
    root: str
    train: list[Tracklet]
    query: list[Tracklet]
    gallery: list[Tracklet]
    protocol: str
    junk: bool = True
    junk_tags: Mapping[str, Literal["same", "other"]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, split))} {split}" for split in SPLITS)
        return f"TrackletDataset({self.name!r}, {self.root!r}, {sizes})"

    def __str__(self) -> str:
        return self.summary()

    @property
    def labels(self) -> dict[int, int]:
        """Class index 0 .. N-1 of each training pid, in ascending order of pid."""
        return {pid: label for label, pid in enumerate(sorted({t.pid for t in self.train}))}

    @property
    def num_train_pids(self) -> int:
        """Number of training identities N, which is the output size of the classifier."""
        return len({t.pid for t in self.train})

    def ignores(self, query: Tracklet, item: Tracklet) -> bool:
        """Whether evaluation ignores a gallery tracklet for a query, by `junk` or `junk_tags`."""
        return query.pid == item.pid and (
            (self.junk and query.camid == item.camid)
            or any(
                (query.tags[tag] == item.tags[tag]) == (remove == "same")
                for tag, remove in self.junk_tags.items()
            )
        )

    def by_name(self) -> dict[str, Tracklet]:
        """All tracklets by name. A tracklet that is in several splits occurs once.

        Raises:
            DatasetError: two tracklets with different images have the same name.
        """
        named: dict[str, Tracklet] = {}
        for tracklet in (*self.train, *self.query, *self.gallery):
            if named.setdefault(tracklet.name, tracklet).paths != tracklet.paths:
                raise DatasetError(
                    f"{self.root}: expected unique tracklet names, got {tracklet.name!r} for "
                    f"{named[tracklet.name].paths[0]} and for {tracklet.paths[0]}"
                )
        return named

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of persons, tracklets, frames and cameras in each of train, query and gallery."""
        return {split: _counts(getattr(self, split)) for split in SPLITS}

    def summary(self) -> str:
        """`counts` as a table, then the protocol, the first ten skipped tracklets and the ignored files."""
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
