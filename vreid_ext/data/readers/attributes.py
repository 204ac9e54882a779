"""Attribute tables of MARS and DukeMTMC-VideoReID.

The table is a CSV file with one row per tracklet: person, camera and tracklet number, then one class index
per attribute. Columns are identified by position, because the spelling of the headers differs between
releases.
"""

import os
from pathlib import Path

from vreid_ext.attributes import attribute_sizes
from vreid_ext.data.records import DatasetError


def read_attributes(
    path: str | os.PathLike[str], dataset: str = "mars"
) -> dict[tuple[int, int, int], dict[str, int]]:
    """Read an attribute table as {(pid, camid, tracklet number): {attribute: class index}}.

    In MARS, the tracklet number is the number between T and F in the file name; in DukeMTMC-VideoReID it is
    the name of the tracklet's folder.

    Raises:
        DatasetError: a wrong number of columns, a value outside the classes, or a duplicate row. The message
            names the file and the line.
        ValueError: unknown data set.
    """
    sizes = attribute_sizes(dataset)
    table: dict[tuple[int, int, int], dict[str, int]] = {}
    # The header may be encoded in GBK. The rows are ASCII, so latin-1 decodes them from either encoding.
    try:
        text = Path(path).read_text(encoding="latin-1")
    except OSError as error:
        raise DatasetError(
            f"{os.fspath(path)}: cannot read the attribute table ({error.strerror})"
        ) from error
    # Not csv.reader: it fails on long cells, and numbers are not quoted.
    for line, row in enumerate((line.split(",") for line in text.splitlines()[1:]), start=2):
        if not any(row):
            continue
        where = f"{os.fspath(path)}, line {line}"
        if len(row) != 3 + len(sizes):
            raise DatasetError(
                f"{where}: expected {3 + len(sizes)} columns for {dataset}, got {len(row)}; "
                "check that the table belongs to this data set"
            )
        try:
            pid, camid, number, *values = map(int, row)
        except ValueError as error:
            raise DatasetError(f"{where}: expected integers: {error}") from error
        for (name, size), value in zip(sizes.items(), values, strict=True):
            if not 0 <= value < size:
                raise DatasetError(f"{where}: {name}: expected 0 .. {size - 1}, got {value}")
        if (pid, camid, number) in table:
            raise DatasetError(
                f"{where}: expected one row per tracklet, got a second one for person {pid}, camera {camid}, "
                f"tracklet {number}"
            )
        table[pid, camid, number] = dict(zip(sizes, values, strict=True))
    return table


def find_attributes(
    root: Path, option: str | os.PathLike[str] | None, name: str, dataset: str
) -> dict[tuple[int, int, int], dict[str, int]]:
    """Read the table `option` if given, else `name` in root or root/info, else return an empty table."""
    if option is not None:
        return read_attributes(option, dataset)
    for path in (root / name, root / "info" / name):
        if path.is_file():
            return read_attributes(path, dataset)
    return {}
