"""Write features to disk (`features.format`): shared by processes, resumed after an interruption."""

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
    """Write the features of tracklets to a folder, or what is missing of them there.

    Under `torchrun` the processes share the missing shards. A shard that is there is kept if its checksum is
    right; if not, a warning names it and its rows are extracted again.

    Args:
        identity: of the model and of all that its features depend on; a folder of another is refused.
        tracklets: the manifest's entry of each row.
        embed: gives for each of some ranges of `tracklets` the tensors that make its shard.
        splits: rows of each split.
        shard_rows: tracklets of a shard; a folder that exists keeps its own.
        about: further entries of the manifest.

    Raises:
        ValueError: the folder holds features of something else, or other files; nothing is written then.
        InUseError: another process writes features there.
        OSError: the disk is full or cannot be written; the shards that are there stay.
    """
    wanted = {"format": FORMAT, "identity": identity, **about, "shard_rows": shard_rows}
    wanted["tracklets"] = tracklets
    # Several may read features that are complete, also where nobody can write.
    with main_writes("features", folder, inside=True, needed=not _is_complete(folder)):
        if is_main():
            _claim(folder, wanted | {"splits": splits})
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
    """Whether all features that a folder's manifest lists are there, damaged or not."""
    if not (folder / MANIFEST).is_file():
        return False
    shards = read_manifest(folder).get("shards", [])
    return bool(shards) and all((folder / shard["file"]).is_file() for shard in shards)


def _claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Write the manifest to a new folder, or see that the one that is there says the same."""
    if not (folder / MANIFEST).is_file():
        # A kill may leave the manifest under its temporary name.
        if folder.exists() and (
            not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())
        ):
            raise ValueError(
                f"features: expected a new or an empty folder, or features to complete, got {str(folder)!r} "
                "with other files"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, wanted)
        return
    there, here = read_manifest(folder), json.loads(json.dumps(wanted))
    keys = sorted(there["identity"].keys() | here["identity"].keys())
    odd = [
        f"{key}: {_short(there['identity'].get(key))}, {_short(here['identity'].get(key))}"
        for key in keys
        if there["identity"].get(key) != here["identity"].get(key)
    ]
    odd += [
        f"tracklet {number}: {', '.join(map(_short, _apart(a, b)))}"
        for number, (a, b) in enumerate(zip_longest(there["tracklets"], here["tracklets"]))
        if a != b
    ][:1]
    odd += ["splits"] if there["splits"] != here["splits"] else []
    if odd:
        raise ValueError(
            f"features: {str(folder)!r} holds those of another model or data set; choose another folder. "
            f"There, here: {'; '.join(odd)}"
        )


def _is_whole(path: Path, of: str) -> bool:
    if not path.exists():
        return False
    damage = damage_of(path, of)
    if damage:
        warnings.warn(f"{path} {damage}; its rows are extracted again", stacklevel=3)
    return damage is None


def _complete(folder: Path, manifest: dict[str, Any], blocks: Sequence[range]) -> None:
    """Write the manifest once more, with what the shards turned out to be."""
    shards = []
    for number, block in enumerate(blocks):
        path = folder / shard_name(number)
        tensors, notes = map_shard(path)
        size = {"file": path.name, "rows": len(block), "bytes": path.stat().st_size}
        shards.append(size | {"sha256": notes["sha256"]})
    widths = {name: array.shape[1] for name, array in tensors.items()}
    write_manifest(folder, manifest | {"widths": widths, "shards": shards})


def _apart(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> list[Any]:
    """Two rows without the entries that they share."""
    if a is None or b is None:
        return [a, b]
    return [{key: row[key] for key in row if a.get(key) != b.get(key)} for row in (a, b)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
