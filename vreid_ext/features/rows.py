"""A common interface to features in tensors, arrays and files. Files are read in chunks, never as a whole."""

import mmap
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vreid_ext import _checks
from vreid_ext.features.stored import StoredRows

Rows: TypeAlias = Tensor | np.ndarray | StoredRows | str | PathLike[str]
DistanceFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_PIECE = 2**25  # bytes of a chunk of a file


class Shard(NamedTuple):
    """This process's part of a gallery of `total` rows: `rows` starts at row `first` of the gallery."""

    rows: Rows
    first: int
    total: int


class Features:
    """Rows (N,D), or (N,...) if `trailing`, in a common interface.

    Attributes:
        shape, dtype, device: of all rows, including those of other processes.
        shard: number of the first row in this process; None if this process has all rows.
        here: number of rows in this process.
    """

    def __init__(self, name: str, value: Any, *, trailing: bool = False) -> None:
        self.shard: int | None = None
        total: int | None = None
        if isinstance(value, Shard):
            value, self.shard, total = value
        if isinstance(value, (str, PathLike)):
            value = _open(name, Path(value))
        if isinstance(value, np.memmap):
            value = _MappedRows(value)
        if not isinstance(value, (Tensor, np.ndarray, _MappedRows, StoredRows)):
            raise TypeError(f"{name}: expected a torch or NumPy array (N,D), got {type(value).__name__}")
        self._file = value if isinstance(value, (_MappedRows, StoredRows)) else None
        # For a file-backed source keep only the dtype; the rows stay on disk.
        self._name = name
        self._rows = _checks.array(
            name, np.empty(0, value.dtype) if self._file is not None else value
        ).detach()
        _checks.has_numbers(name, self._rows)
        self.shape = tuple(value.shape)
        self.dtype: torch.dtype = self._rows.dtype
        self.device: torch.device = self._rows.device
        if not self.dtype.is_floating_point:
            raise TypeError(f"{name}: expected a floating-point dtype, got {self.dtype}")
        if len(self.shape) < 2 or (len(self.shape) > 2 and not trailing) or 0 in self.shape:
            raise ValueError(f"{name}: expected shape (N,D) with N and D at least 1, got {self.shape}")
        self.here = self.shape[0]
        if self.shard is not None and total is not None:
            if not 0 <= self.shard <= total - self.here:
                last = self.shard + self.here - 1
                raise ValueError(f"{name}: expected rows from 0 to {total - 1}, got {self.shard} to {last}")
            self.shape = (total, *self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Rows by their index among the rows of this process."""
        if self._file is None:
            return self._rows[rows]
        return _checks.array(self._name, self._file[rows if isinstance(rows, slice) else rows.numpy()])

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (number of the first row, rows) of this process: chunks of 32 MB of a file, else all rows."""
        start = self.shard or 0
        if self._file is None:
            yield start, self._rows
            return
        for first in range(0, self.here, self._piece):
            yield start + first, self[first : first + self._piece]

    def among(self, numbers: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Find the rows with the given numbers in this process, chunk by chunk. No other rows of a file are
        read.

        Yields:
            (mask, rows, places): `mask` selects the `numbers` in this chunk, and `rows[places]` are their
            rows.
        """
        start = self.shard or 0
        if self._file is None:
            which = (numbers >= start) & (numbers < start + self.here)
            yield which, self._rows, numbers[which] - start
            return
        for first in range(start, start + self.here, self._piece):
            which = (numbers >= first) & (numbers < min(first + self._piece, start + self.here))
            if which.any():
                rows, places = numbers[which].unique(return_inverse=True)
                yield which, self[rows - start], places

    @property
    def _piece(self) -> int:
        """Number of rows in a chunk of a file."""
        assert self._file is not None
        return max(1, _PIECE // (self._file.nbytes // self.here))


def _open(name: str, path: Path) -> np.ndarray:
    if path.suffix != ".npy":
        raise ValueError(f"{name}: expected a .npy file, got {str(path)!r}")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ValueError(f"{name}: expected a readable file, got {str(path)!r}: {error}") from error
    return array


class _MappedRows:
    """Rows of a memory-mapped array; indexing returns a copy."""

    def __init__(self, array: np.memmap) -> None:
        self._array = array
        self.shape, self.dtype, self.nbytes = array.shape, array.dtype, array.nbytes

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        taken = np.array(self._array[rows])
        self._release()
        return taken

    def _release(self) -> None:
        """Release the pages that were read; otherwise the whole file would count as memory in use."""
        base: Any = self._array
        while base is not None and not isinstance(base, mmap.mmap):
            base = base.base
        # Keep the pages of a private (copy-on-write) mapping: they may contain changes.
        if base is not None and self._array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
            base.madvise(mmap.MADV_DONTNEED)
