"""Reads features on disk (`features.format`) through memory maps; a split may be larger than memory."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vreid_ext.features.format import damage_of, digest, map_shard, read_manifest, shard_name


class StoredRows:
    """Rows that are read from disk by indexing: `rows[slice]` or `rows[index array]` returns an array (n,D).

    Attributes:
        shape: (N,D).
        dtype: float32.
        nbytes: size of all rows in bytes.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, folder: Path, shard_rows: int, tensor: str, width: int, numbers: np.ndarray) -> None:
        self._folder, self._shard_rows, self._tensor, self._numbers = folder, shard_rows, tensor, numbers
        self.shape = len(numbers), width
        self.nbytes = len(numbers) * width * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        numbers = self._numbers[rows]
        taken = np.empty((len(numbers), self.shape[1]), self.dtype)
        shard, row = np.divmod(numbers, self._shard_rows)
        for number in np.unique(shard):
            which = shard == number
            # Map the shard only for this read, so that its pages are released afterwards.
            taken[which] = map_shard(self._folder / shard_name(number))[0][self._tensor][row[which]]
        return taken

    def part(self, first: int, stop: int) -> "StoredRows":
        """The rows first ... stop - 1, without reading them."""
        return self.take(slice(first, stop))

    def take(self, rows: slice | np.ndarray) -> "StoredRows":
        """The rows with the given indices, in that order, without reading them."""
        numbers = self._numbers[rows]
        return StoredRows(self._folder, self._shard_rows, self._tensor, self.shape[1], numbers)


class StoredFeatures:
    """A folder of features, written by `vreid extract` or `vreid eval --features`.

    Attributes:
        manifest: the content of the manifest file.

    Raises:
        ValueError: the folder does not exist, has another format or is incomplete, or a shard is missing or
            truncated; the message contains the path.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if "shards" not in self.manifest:
            raise ValueError(
                f"features: expected a complete folder, got {str(folder)!r}, which is incomplete; run the "
                "interrupted command again to resume"
            )
        for shard in self.manifest["shards"]:
            path = self.folder / shard["file"]
            size = path.stat().st_size if path.is_file() else 0
            if size != shard["bytes"]:
                raise ValueError(f"features: expected {shard['bytes']} bytes in {str(path)!r}, got {size}")

    def __repr__(self) -> str:
        splits = ", ".join(f"{len(rows)} {name}" for name, rows in self.manifest["splits"].items())
        width = self.manifest["widths"].get("features")
        tracklets = len(self.manifest["tracklets"])
        return f"StoredFeatures({str(self.folder)!r}, {tracklets} tracklets x {width}: {splits})"

    def rows(self, split: str | None = None, tensor: str = "features") -> StoredRows:
        """The rows of a split, "query" or "gallery", in its order; of all tracklets if `split` is None."""
        widths, count = self.manifest["widths"], len(self.manifest["tracklets"])
        if tensor not in widths:
            raise ValueError(
                f"tensor: expected one of {sorted(widths)} in {str(self.folder)!r}, got {tensor!r}"
            )
        numbers = np.arange(count) if split is None else np.array(self.numbers(split), np.int64)
        return StoredRows(self.folder, self.manifest["shard_rows"], tensor, widths[tensor], numbers)

    def tracklets(self, split: str) -> list[dict[str, Any]]:
        """name, pid, camid, frames and images (a digest of their names) of every row of a split."""
        return [self.manifest["tracklets"][number] for number in self.numbers(split)]

    def labels(self, split: str) -> tuple[Tensor, Tensor]:
        """The pids and camids of a split, int64."""
        tracklets = self.tracklets(split)
        pids, camids = (
            torch.tensor([each[key] for each in tracklets], dtype=torch.int64, device="cpu")
            for key in ("pid", "camid")
        )
        return pids, camids

    def verify(self) -> None:
        """Read all shards and verify their checksums.

        Raises:
            ValueError: a file is damaged; the message contains its path.
        """
        of = digest(self.manifest)
        for shard in self.manifest["shards"]:
            path = self.folder / shard["file"]
            if damage := damage_of(path, of):
                raise ValueError(
                    f"features: {str(path)!r} {damage}; extract the features again to replace it"
                )

    def numbers(self, split: str) -> list[int]:
        """The row numbers of a split's tracklets in the folder."""
        splits: dict[str, list[int]] = self.manifest["splits"]
        if split not in splits:
            raise ValueError(
                f"split: expected one of {sorted(splits)} in {str(self.folder)!r}, got {split!r}"
            )
        return splits[split]
