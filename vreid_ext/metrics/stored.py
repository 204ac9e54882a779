"""Features on disk: a folder of safetensors shards and a manifest that says what their rows are.

    manifest.json               format; identity: which model embedded what; metric, protocol, shard_rows;
                                tracklets: name, pid, camid, frames, images of every row; splits: the rows of
                                "query" and "gallery"; and once all is there widths (of a tensor's rows) and
                                shards (file, rows, bytes, sha256)
    rows-000000.safetensors     rows 0 to shard_rows - 1: "features" (n,D) float32, and "attributes" (n,A)
    rows-000001.safetensors     of a model that recognises them. The header holds sha256, the checksum of the
    ...                         tensors, and of, the digest of the manifest that they belong to

`engine.store` writes it. It is read through memory maps, so a split may be larger than memory.
"""

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FORMAT = 1
MANIFEST = "manifest.json"


class StoredRows:
    """Rows that are read when they are indexed: `rows[slice]` or `rows[index array]` gives an array (n,D).

    Attributes:
        shape: (N,D).
        dtype: float32.
        nbytes: what all rows take.
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
            # Mapped for this alone: pages that were read do not stay with the process.
            taken[which] = map_shard(self._folder / shard_name(number))[0][self._tensor][row[which]]
        return taken

    def part(self, first: int, stop: int) -> "StoredRows":
        """The rows first ... stop - 1, unread."""
        numbers = self._numbers[first:stop]
        return StoredRows(self._folder, self._shard_rows, self._tensor, self.shape[1], numbers)


class StoredFeatures:
    """A folder that `vreid extract` or `vreid eval --features` has written.

    Attributes:
        manifest: as the file holds it.

    Raises:
        ValueError: no such folder, one of another format or not yet complete, a shard that is missing or cut
            off; the message names the file.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if "shards" not in self.manifest:
            raise ValueError(
                f"features: {str(folder)!r} is incomplete; the command that was interrupted goes on with it"
            )
        for shard in self.manifest["shards"]:
            path = self.folder / shard["file"]
            size = path.stat().st_size if path.is_file() else 0
            if size != shard["bytes"]:
                raise ValueError(f"features: got {size} bytes in {str(path)!r}, wanted {shard['bytes']}")

    def __repr__(self) -> str:
        splits = ", ".join(f"{len(rows)} {name}" for name, rows in self.manifest["splits"].items())
        width = self.manifest["widths"].get("features")
        tracklets = len(self.manifest["tracklets"])
        return f"StoredFeatures({str(self.folder)!r}, {tracklets} tracklets x {width}: {splits})"

    def rows(self, split: str | None = None, tensor: str = "features") -> StoredRows:
        """The rows of a split, "query" or "gallery", in its order; of all tracklets unless given."""
        widths, count = self.manifest["widths"], len(self.manifest["tracklets"])
        if tensor not in widths:
            raise ValueError(f"tensor: got {tensor!r}, {str(self.folder)!r} has {sorted(widths)}")
        numbers = np.arange(count) if split is None else np.array(self.numbers(split), np.int64)
        return StoredRows(self.folder, self.manifest["shard_rows"], tensor, widths[tensor], numbers)

    def tracklets(self, split: str) -> list[dict[str, Any]]:
        """name, pid, camid, frames and images (a digest of their names) of every row of a split."""
        return [self.manifest["tracklets"][number] for number in self.numbers(split)]

    def labels(self, split: str) -> tuple[Tensor, Tensor]:
        """pids and camids of a split, int64."""
        tracklets = self.tracklets(split)
        pids, camids = (
            torch.tensor([each[key] for each in tracklets], dtype=torch.int64, device="cpu")
            for key in ("pid", "camid")
        )
        return pids, camids

    def verify(self) -> None:
        """Read everything and compare checksums.

        Raises:
            ValueError: naming the file that is damaged.
        """
        of = digest(self.manifest)
        for shard in self.manifest["shards"]:
            path = self.folder / shard["file"]
            if damage := damage_of(path, of):
                raise ValueError(f"features: {str(path)!r} {damage}; extract again to replace it")

    def numbers(self, split: str) -> list[int]:
        """The places of a split's tracklets in the folder."""
        splits: dict[str, list[int]] = self.manifest["splits"]
        if split not in splits:
            raise ValueError(f"split: got {split!r}, {str(self.folder)!r} has {sorted(splits)}")
        return splits[split]


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"features: got {str(folder)!r}, which has no {MANIFEST}, wanted a folder of features"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"features: {str(path)!r} is damaged: {error}") from error
    if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
        raise ValueError(f"features: got format {manifest['format']!r} in {str(path)!r}, wanted {FORMAT}")
    try:
        whole = _has_all(manifest)
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"features: {str(path)!r} is damaged: what it holds is no manifest")
    return manifest


def _has_all(manifest: dict[str, Any]) -> bool:
    """Whether all is there that others read; a KeyError, TypeError or AttributeError says no as well."""
    count = len(manifest["tracklets"])
    splits, shards = manifest["splits"].values(), manifest.get("shards", [])
    return (
        isinstance(manifest["identity"], dict)
        and all(type(row["pid"]) is type(row["camid"]) is int for row in manifest["tracklets"])
        and all(isinstance(row["name"], str) for row in manifest["tracklets"])
        and all(type(number) is int and 0 <= number < count for split in splits for number in split)
        and manifest["shard_rows"] > 0
        and all(type(shard["bytes"]) is int for shard in shards)
        and [shard["file"] for shard in shards] == [shard_name(number) for number in range(len(shards))]
        and ("shards" not in manifest or all(width > 0 for width in manifest["widths"].values()))
    )


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of what the rows of a manifest are."""
    what = {key: manifest[key] for key in ("identity", "tracklets", "splits", "shard_rows")}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def shard_name(number: int) -> str:
    return f"rows-{number:06d}.safetensors"


def map_shard(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a shard, memory-mapped, and the notes in its header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    notes = header.pop("__metadata__", {})
    start = 8 + length
    tensors: dict[str, np.ndarray] = {
        name: np.memmap(path, "<f4", "r", start + entry["data_offsets"][0], tuple(entry["shape"]))
        for name, entry in header.items()
    }
    return tensors, notes


def checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes and numbers."""
    total = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        total.update(f"{name} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def damage_of(path: Path, of: str) -> str | None:
    """What is wrong with a shard of the manifest whose digest is `of`, None if nothing is."""
    try:
        tensors, notes = map_shard(path)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        return f"cannot be read ({error})"
    if notes.get("of") != of:
        return "belongs to other features"
    return None if notes.get("sha256") == checksum(tensors) else "has a wrong checksum"
