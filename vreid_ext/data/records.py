"""Tracklets and the data sets made of them: the two records every loader returns and every consumer reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


class DatasetError(ValueError):
    """A data set on disk is not what its loader expects; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Tracklet:
    """The crops of one person from one camera, in the order of time.

    Attributes:
        paths: image files, at least one.
        pid: identity; in MARS 0 stands for all distractors.
        camid: camera number as the data set writes it.
        name: for lists and pictures.
        attributes: class index of each attribute (`read_attributes`), None if unlabelled.
        joints: (n,14,3) x, y in pixels and confidence of each frame's joints (`attach_joints`), or None.
    """

    paths: tuple[str, ...]
    pid: int
    camid: int
    name: str
    attributes: Mapping[str, int] | None = None
    joints: Tensor | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.paths)


@dataclass(slots=True)
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
    """

    name: str
    root: str
    train: list[Tracklet]
    query: list[Tracklet]
    gallery: list[Tracklet]
    protocol: str
    junk: bool = True
    skipped: list[str] = field(default_factory=list)

    @property
    def labels(self) -> dict[int, int]:
        """Class number 0 .. N-1 of every training pid, in ascending order of pid."""
        return {pid: label for label, pid in enumerate(sorted({t.pid for t in self.train}))}

    @property
    def num_train_pids(self) -> int:
        """Number of training identities N: the width of the classifier."""
        return len({t.pid for t in self.train})

    def summary(self) -> str:
        """A small table: ids, tracklets, images and cameras per split, the protocol, what was skipped."""
        lines = [
            f"{self.name} at {self.root}",
            f"{'split':<9}{'ids':>7}{'tracklets':>11}{'images':>10}{'cameras':>9}",
        ]
        for split in ("train", "query", "gallery"):
            tracklets: list[Tracklet] = getattr(self, split)
            ids, cameras = {t.pid for t in tracklets}, {t.camid for t in tracklets}
            images = sum(map(len, tracklets))
            lines.append(f"{split:<9}{len(ids):>7}{len(tracklets):>11}{images:>10}{len(cameras):>9}")
        lines.append(f"protocol: {self.protocol}")
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} tracklets:")
            lines += [f"  {reason}" for reason in self.skipped]
        return "\n".join(lines)
