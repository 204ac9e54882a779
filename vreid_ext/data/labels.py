"""Labels of training tracklets in a file, used instead of the persons of the data set.

{"format": 1, "labels": {"0001_c1": 0, "0001_c2": 0, "0002_c1": 1}}      tracklet name -> label, from 0
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vreid_ext._files import write_json
from vreid_ext.data.records import DatasetError, TrackletDataset

_FORMAT = 1


def write_labels(path: Path, labels: Mapping[str, int], **facts: Any) -> None:
    """Write the labels of tracklets, by name, and facts about them that can be written as JSON."""
    write_json(path, {"format": _FORMAT, **facts, "labels": dict(labels)})


def read_labels(path: Path) -> dict[str, Any]:
    """Read the content of a file of `write_labels`.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"expected format {_FORMAT}, got {content['format']!r}")
        for name, label in content["labels"].items():
            if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < 2**63:
                raise ValueError(f"expected labels from 0, got {label!r} for {name!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f'{path}: expected labels, {{"format": {_FORMAT}, "labels": {{tracklet: label}}}}, got an error: '
            f"{error}"
        ) from error
    return content


def relabeled(data: TrackletDataset, path: str | Path) -> TrackletDataset:
    """Replace the persons of the training tracklets by the labels of a file. Tracklets without one are left
    out, and so are attributes, which are labels too. Query and gallery do not change.

    Raises:
        DatasetError: the file is missing or damaged, has no label, or a name that is not exactly one training
            tracklet.
    """
    labels = read_labels(Path(path))["labels"]
    count = Counter(tracklet.name for tracklet in data.train)
    wrong = next((name for name in labels if count[name] != 1), None)
    if wrong is not None or not labels:
        got = "no label" if wrong is None else f"{wrong!r}, the name of {count[wrong]}"
        raise DatasetError(f"{path}: expected names of training tracklets of {data.root}, got {got}")
    train = [
        replace(tracklet, pid=labels[tracklet.name], attributes=None)
        for tracklet in data.train
        if tracklet.name in labels
    ]
    return replace(data, train=train, protocol=f"{data.protocol}; training labels from a file")
