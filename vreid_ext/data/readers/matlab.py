"""Reader for numeric matrices in MATLAB 5 files.

SciPy's reader crashes the interpreter on some damaged files. Data sets need only a small part of the format.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vreid_ext.data.records import DatasetError

MAX_BYTES = 1 << 26  # largest decompressed variable; the tables of MARS have 0.2 MB

_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC_CLASSES = range(6, 16)  # double, single, int8 to uint64


def load_matrix(path: Path, key: str) -> np.ndarray:
    """Load the numeric matrix `key` of a MATLAB file (version 5 to 7; not 7.3, which is HDF5).

    Raises:
        DatasetError: the file is unreadable, damaged, or has no such matrix. The message names the file.
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
            f"{path}: cannot be read as a MATLAB file ({error}); restore it from the original data set"
        ) from error
    raise DatasetError(
        f"{path}: expected a numeric matrix {key!r}, got a file without it; check that it is the right file"
    )


def load_hdf5_matrix(path: Path, key: str) -> np.ndarray:
    """Load the numeric matrix `key` of a MATLAB file of version 7.3, which is HDF5 and stores the transpose.

    Raises:
        DatasetError: the file is unreadable, damaged, or has no such matrix. The message names the file.
        ImportError: h5py is not installed.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            matrix: np.ndarray = np.asarray(file[key][()])
        if matrix.dtype.kind not in "iuf":
            raise TypeError(f"expected numbers, got {matrix.dtype}")
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise DatasetError(
            f"{path}: expected an HDF5 file with a numeric matrix {key!r}, got an error: {error}; "
            "restore the file"
        ) from error
    return matrix.T


def _elements(content: bytes, order: str, *, compressed: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yield (type, data) of each element. With `compressed`, compressed elements are decompressed."""
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(order + "II", content, place)
        start, step = place + 8, 8 + size
        if kind >> 16:  # small data element: one word holds size and type, the next word the data
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
            if size > 4:
                raise ValueError(f"expected at most 4 bytes in a small data element, got {size}")
        data = content[start : start + size]
        if len(data) < size:
            raise ValueError(f"expected an element of {size} bytes, got {len(data)}")
        if kind == _COMPRESSED and compressed:
            decompressor = zlib.decompressobj()
            data = decompressor.decompress(data, MAX_BYTES)
            if decompressor.unconsumed_tail:
                raise ValueError(f"expected a variable of at most {MAX_BYTES} bytes, got more")
            yield from _elements(data, order)
        else:
            yield kind, data
        place += step if kind == _COMPRESSED else -(-step // 8) * 8


def _numeric(data: bytes, order: str, key: str) -> np.ndarray | None:
    """Decode a matrix element, or return None if the variable is not named `key`."""
    (_, flags), (_, dims), (_, name), *parts = _elements(data, order)
    if name.rstrip(b"\0").decode("latin-1") != key:
        return None
    (word,) = struct.unpack_from(order + "I", flags)
    if word & 0xFF not in _NUMERIC_CLASSES or not parts:
        raise ValueError(f"{key}: expected a numeric matrix, got MATLAB class {word & 0xFF}")
    shape = np.frombuffer(dims, order + "i4").tolist()
    kind, numbers = parts[0]
    if kind not in _NUMBERS:
        raise ValueError(f"{key}: expected a numeric data type, got type {kind}")
    values = np.frombuffer(numbers, order + _NUMBERS[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{key}: expected {' x '.join(map(str, shape))} numbers, got {len(values)}")
    return values.reshape(shape, order="F")
