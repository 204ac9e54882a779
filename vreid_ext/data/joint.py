"""Joint training of one model on several data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from vreid_ext.data.records import TrackletDataset


class Named(Protocol):
    name: str


def set_names(datasets: Sequence[Named]) -> list[str]:
    """Unique names of the data sets: repeated names are numbered, e.g. `mars-1` and `mars-2`."""
    count = Counter(each.name for each in datasets)
    seen: Counter[str] = Counter()
    names = []
    for each in datasets:
        seen[each.name] += 1
        names.append(each.name if count[each.name] == 1 else f"{each.name}-{seen[each.name]}")
    return names


def join_training(datasets: Sequence[TrackletDataset]) -> TrackletDataset:
    """Concatenate the training tracklets of several data sets. Query and gallery are empty.

    Persons of different data sets are different identities, even if their pids are equal. Identities are
    renumbered from 0, data set by data set, in ascending order of pid. Tracklets are named `<set>/<name>`.
    """
    train = []
    first = 0
    for name, each in zip(set_names(datasets), datasets, strict=True):
        train += [
            replace(tracklet, pid=first + each.labels[tracklet.pid], name=f"{name}/{tracklet.name}")
            for tracklet in each.train
        ]
        first += each.num_train_pids
    return TrackletDataset(
        name=", ".join(set_names(datasets)),
        root=", ".join(each.root for each in datasets),
        train=train,
        query=[],
        gallery=[],
        protocol="training tracklets of several data sets",
    )
