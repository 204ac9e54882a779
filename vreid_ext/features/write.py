"""Writes features to disk (`features.format`), distributed over processes; resumes after an interruption."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import Tensor

from vreid_ext.distributed import is_main, main_writes, union, wait_for_everyone, world
from vreid_ext.features.format import (
    FORMAT,
    MANIFEST,
    damage_of,
    digest,
    map_shard,
    read_manifest,
    shard_name,
    write_manifest,
    write_shard,
)
from vreid_ext.features.stored import StoredFeatures


def store_features(
    folder: Path,
    identity: Mapping[str, Any],
    tracklets: Sequence[Mapping[str, Any]],
    embed: Callable[[Sequence[range]], Iterator[dict[str, Tensor]]],
    *,
    splits: Mapping[str, Sequence[int]],
    shard_rows: int,
    **about: Any,
) -> StoredFeatures:
    """Write the features of tracklets to a folder, or complete a folder that was interrupted.

    Under `torchrun` the missing shards are distributed over the processes. Existing shards with a correct
    checksum are kept. For a wrong checksum it warns and extracts the rows of the shard again.

    Args:
        identity: describes the model and everything else that the features depend on. An existing folder must
            have the same identity.
        tracklets: the manifest entry of each row.
        embed: takes a list of ranges of `tracklets` and yields the tensors of the shard for each range.
        splits: row numbers of each split.
        shard_rows: number of tracklets in a shard; an existing folder keeps its own.
        about: further entries of the manifest.

    Raises:
        ValueError: the folder contains features with another identity, or other files. Nothing is written.
        InUseError: another process is writing to the folder.
        OSError: the disk is full or read-only; complete shards are kept.
    """
    manifest = {"format": FORMAT, "identity": identity, **about, "shard_rows": shard_rows}
    manifest |= {"tracklets": tracklets, "splits": splits}
    # No lock for complete features: several processes may read them, also from a read-only folder.
    with main_writes("features", folder, inside=True, needed=not _is_complete(folder)):
        if is_main():
            _claim(folder, manifest)
        wait_for_everyone()
        manifest = read_manifest(folder)
        of, shard_rows = digest(manifest), manifest["shard_rows"]
        blocks = [
            range(first, min(first + shard_rows, len(tracklets)))
            for first in range(0, len(tracklets), shard_rows)
        ]
        rank, size = world()
        missing = union(
            n for n in range(rank, len(blocks), size) if not _is_whole(folder / shard_name(n), of)
        )
        mine = missing[rank::size]
        for number, tensors in zip(mine, embed([blocks[number] for number in mine]), strict=True):
            write_shard(folder / shard_name(number), tensors, of)
        wait_for_everyone()
        if is_main() and (missing or "shards" not in manifest):
            _complete(folder, manifest, blocks)
        wait_for_everyone()
    return StoredFeatures(folder)


def _is_complete(folder: Path) -> bool:
    """Whether all shards in the manifest of a folder exist, damaged or not."""
    if not (folder / MANIFEST).is_file():
        return False
    shards = read_manifest(folder).get("shards", [])
    return bool(shards) and all((folder / shard["file"]).is_file() for shard in shards)


def _claim(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest to a new folder, or check that the manifest of an existing folder agrees."""
    if not (folder / MANIFEST).is_file():
        # Ignore hidden files: a killed process may have left the manifest under its temporary name.
        if folder.exists() and (
            not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())
        ):
            raise ValueError(
                f"features: expected a new or empty folder or a folder of features, got {str(folder)!r} "
                "with other files"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, manifest)
        return
    old, new = read_manifest(folder), json.loads(json.dumps(manifest))
    keys = sorted(old["identity"].keys() | new["identity"].keys())
    differences = [
        f"{key}: {_short(old['identity'].get(key))}, {_short(new['identity'].get(key))}"
        for key in keys
        if old["identity"].get(key) != new["identity"].get(key)
    ]
    differences += [
        f"tracklet {number}: {', '.join(map(_short, _different(a, b)))}"
        for number, (a, b) in enumerate(zip_longest(old["tracklets"], new["tracklets"]))
        if a != b
    ][:1]
    differences += ["splits"] if old["splits"] != new["splits"] else []
    if differences:
        raise ValueError(
            "features: expected features of this model and data set, got those of another model or data set "
            f"in {str(folder)!r}; choose another folder. Existing, new: {'; '.join(differences)}"
        )


def _is_whole(path: Path, of: str) -> bool:
    if not path.exists():
        return False
    damage = damage_of(path, of)
    if damage:
        warnings.warn(f"{path} {damage}; its rows are extracted again", stacklevel=3)
    return damage is None


def _complete(folder: Path, manifest: dict[str, Any], blocks: Sequence[range]) -> None:
    """Write the final manifest, with the sizes and checksums of the shards."""
    shards = []
    for number, block in enumerate(blocks):
        path = folder / shard_name(number)
        tensors, notes = map_shard(path)
        size = {"file": path.name, "rows": len(block), "bytes": path.stat().st_size}
        shards.append(size | {"sha256": notes["sha256"]})
    widths = {name: array.shape[1] for name, array in tensors.items()}
    write_manifest(folder, manifest | {"widths": widths, "shards": shards})


def _different(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> list[Any]:
    """Remove the entries that are equal in both rows."""
    if a is None or b is None:
        return [a, b]
    return [{key: row[key] for key in row if a.get(key) != b.get(key)} for row in (a, b)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
