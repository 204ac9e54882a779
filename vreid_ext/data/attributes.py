"""Attribute labels of MARS and DukeMTMC-VideoReID, as used by ASTA and AITL.

The table is a CSV file with one row per tracklet: person, camera and tracklet number, then one class index
per attribute. Columns are taken by position, because the spelling of the headers differs between releases.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vreid_ext.losses.attributes import IGNORE

from .records import DatasetError

Group = Literal["id_relevant", "id_irrelevant", "all"]

# Attribute -> number of classes, in the order of the columns from the fourth on.
ID_IRRELEVANT: Mapping[str, int] = {
    "motion": 5,
    "pose": 6,
    "occlusion": 2,
    "cut_out": 2,
    "multi_person": 2,
    "background_dominant": 2,
    "target_change": 2,
    "target_miss": 2,
    "wrong_target": 2,
}
ID_RELEVANT: Mapping[str, Mapping[str, int]] = {
    "mars": {
        "top_color": 9,
        "bottom_color": 10,
        "age": 4,
        "top_length": 2,
        "bottom_length": 2,
        "shoulder_bag": 2,
        "backpack": 2,
        "hat": 2,
        "hand_bag": 2,
        "hair": 2,
        "gender": 2,
        "bottom_type": 2,
    },
    "dukev": {
        "backpack": 2,
        "bag": 2,
        "handbag": 2,
        "boots": 2,
        "gender": 2,
        "hat": 2,
        "shoes": 2,
        "top": 2,
        "bottom_color": 8,
        "top_color": 9,
    },
}


def attribute_sizes(dataset: str, group: Group = "all") -> dict[str, int]:
    """Number of classes of each attribute of "mars" or "dukev", in column order ("all": ID-irrelevant first).

    They sum to 25 for "id_irrelevant", to 41 (mars) and 33 (dukev) for "id_relevant".

    Raises:
        ValueError: unknown data set or group.
    """
    if dataset not in ID_RELEVANT:
        raise ValueError(f"dataset: got {dataset!r}, want one of {', '.join(ID_RELEVANT)}")
    groups = {
        "id_irrelevant": dict(ID_IRRELEVANT),
        "id_relevant": dict(ID_RELEVANT[dataset]),
        "all": {**ID_IRRELEVANT, **ID_RELEVANT[dataset]},
    }
    if group not in groups:
        raise ValueError(f"group: got {group!r}, want one of {', '.join(groups)}")
    return groups[group]


def read_attributes(
    path: str | os.PathLike[str], dataset: str = "mars"
) -> dict[tuple[int, int, int], dict[str, int]]:
    """Attribute table as {(pid, camid, tracklet number): {attribute: class index}}.

    The tracklet number is the one between T and F in a MARS file name, the tracklet's folder in
    DukeMTMC-VideoReID.

    Raises:
        DatasetError: naming file and line: another number of columns, a value that is no class, a repeated
            row.
        ValueError: unknown data set.
    """
    sizes = attribute_sizes(dataset)
    table: dict[tuple[int, int, int], dict[str, int]] = {}
    # Headers may be in GBK; the rows are digits and commas, which latin-1 reads from any of these encodings.
    try:
        text = Path(path).read_text(encoding="latin-1")
    except OSError as error:
        raise DatasetError(
            f"{os.fspath(path)}: cannot read the attribute table ({error.strerror})"
        ) from error
    # Numbers need no quotes, and csv.reader fails on a long cell.
    for line, row in enumerate((line.split(",") for line in text.splitlines()[1:]), start=2):
        if not any(row):
            continue
        where = f"{os.fspath(path)}, line {line}"
        if len(row) != 3 + len(sizes):
            raise DatasetError(
                f"{where}: {len(row)} columns, "
                f"the table of {dataset} has {3 + len(sizes)}; is it the other data set's?"
            )
        try:
            pid, camid, number, *values = map(int, row)
        except ValueError as error:
            raise DatasetError(f"{where}: {error}; want whole numbers only") from error
        for (name, size), value in zip(sizes.items(), values, strict=True):
            if not 0 <= value < size:
                raise DatasetError(f"{where}: {name} is {value}, want 0 .. {size - 1}")
        if (pid, camid, number) in table:
            raise DatasetError(f"{where}: person {pid}, camera {camid}, tracklet {number} comes up twice")
        table[pid, camid, number] = dict(zip(sizes, values, strict=True))
    return table


def one_hot(attributes: Mapping[str, int], dataset: str = "mars", group: Group = "all") -> Tensor:
    """Class indices as concatenated one-hot vectors, (sum of `attribute_sizes(dataset, group)`,) float32."""
    sizes = attribute_sizes(dataset, group)
    missing = [name for name in sizes if name not in attributes]
    if missing:
        raise ValueError(f"attributes: {missing[0]!r} is missing; want {', '.join(sizes)}")
    return torch.cat([torch.eye(size, dtype=torch.float32)[attributes[name]] for name, size in sizes.items()])


def attribute_labels(attributes: Mapping[str, int] | None, names: Iterable[str]) -> Tensor:
    """Class indices of the named attributes, (A,) int64; -1, which losses and metrics leave out, where the
    tracklet or one of its attributes is not in the table.
    """
    given = attributes or {}
    return torch.tensor([given.get(name, IGNORE) for name in names], dtype=torch.int64)


def find_attributes(
    root: Path, option: str | os.PathLike[str] | None, name: str, dataset: str
) -> dict[tuple[int, int, int], dict[str, int]]:
    """The table given as `option`, else `name` where it lies in root or root/info, else an empty one."""
    if option is not None:
        return read_attributes(option, dataset)
    for path in (root / name, root / "info" / name):
        if path.is_file():
            return read_attributes(path, dataset)
    return {}
