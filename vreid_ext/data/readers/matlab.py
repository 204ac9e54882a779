"""Numeric matrices of MATLAB 5 files.

SciPy's reader ends the interpreter on some damaged files; the tables of data sets need a small part of it.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vreid_ext.data.records import DatasetError

MAX_BYTES = 1 << 26  # of one variable; the tables of MARS have 0.2 MB

_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC_CLASSES = range(6, 16)  # double, single and the integers; no cells, structures, text, sparse arrays


def load_matrix(path: Path, key: str) -> np.ndarray:
    """The numeric matrix `key` of a MATLAB file (version 5 to 7, not the HDF5 of 7.3).

    Raises:
        DatasetError: naming the file: unreadable, damaged, or without such a matrix.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        order = {b"IM": "<", b"MI": ">"}[content[126:128]]
        for kind, data in _elements(content[128:], order, compressed=True):
            if kind == _MATRIX and (matrix := _numeric(data, order, key)) is not None:
                return matrix
    except (KeyError, IndexError, ValueError, struct.error, zlib.error) as error:
        raise DatasetError(
            f"{path}: cannot be read as a MATLAB file ({error}); restore it from its data set"
        ) from error
    raise DatasetError(f"{path}: holds no numeric matrix {key!r}; is it another file under this name?")


def _elements(content: bytes, order: str, *, compressed: bool = False) -> Iterator[tuple[int, bytes]]:
    """(type, data) of each element; the compressed ones opened."""
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(order + "II", content, place)
        start, step = place + 8, 8 + size
        if kind >> 16:  # the short form: size and type share a word, the data the next
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
            if size > 4:
                raise ValueError(f"a short element of {size} bytes")
        data = content[start : start + size]
        if len(data) < size:
            raise ValueError(f"{size} bytes announced, {len(data)} there")
        if kind == _COMPRESSED and compressed:
            opener = zlib.decompressobj()
            data = opener.decompress(data, MAX_BYTES)
            if opener.unconsumed_tail:
                raise ValueError(f"a variable of more than {MAX_BYTES} bytes")
            yield from _elements(data, order)
        else:
            yield kind, data
        place += step if kind == _COMPRESSED else -(-step // 8) * 8


def _numeric(data: bytes, order: str, key: str) -> np.ndarray | None:
    """The matrix of an element, None if it is another variable."""
    (_, flags), (_, dims), (_, name), *parts = _elements(data, order)
    if name.rstrip(b"\0").decode("latin-1") != key:
        return None
    (word,) = struct.unpack_from(order + "I", flags)
    if word & 0xFF not in _NUMERIC_CLASSES or not parts:
        raise ValueError(f"{key} is no numeric matrix")
    shape = np.frombuffer(dims, order + "i4").tolist()
    kind, numbers = parts[0]
    if kind not in _NUMBERS:
        raise ValueError(f"{key} has numbers of the unknown type {kind}")
    values = np.frombuffer(numbers, order + _NUMBERS[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{key} is said to be {' x '.join(map(str, shape))}, but has {len(values)} numbers")
    return values.reshape(shape, order="F")
