"""Attribute tables of MARS and DukeMTMC-VideoReID.

The table is a CSV file with one row per tracklet: person, camera and tracklet number, then one class index
per attribute. Columns are taken by position, because the spelling of the headers differs between releases.
"""

import os
from pathlib import Path

from vreid_ext.attributes import attribute_sizes
from vreid_ext.data.records import DatasetError


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
            raise DatasetError(f"{where}: expected whole numbers: {error}") from error
        for (name, size), value in zip(sizes.items(), values, strict=True):
            if not 0 <= value < size:
                raise DatasetError(f"{where}: {name}: expected 0 .. {size - 1}, got {value}")
        if (pid, camid, number) in table:
            raise DatasetError(f"{where}: person {pid}, camera {camid}, tracklet {number} comes up twice")
        table[pid, camid, number] = dict(zip(sizes, values, strict=True))
    return table


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
