"""The format of features on disk: a folder with a manifest and safetensors shards.

    manifest.json               format; identity: model and settings of the features; metric, protocol, junk,
                                junk_tags; root: folder of the data set; shard_rows; tracklets: name, pid,
                                camid, frames, images, and the tags if there are any, of every row; splits:
                                row numbers of "query" and "gallery". A complete
                                folder also has widths (row length of each tensor) and shards (file, rows,
                                bytes, sha256)
    rows-000000.safetensors     rows 0 to shard_rows - 1: "features" (n,D) float32 and, for models that
    rows-000001.safetensors     predict attributes, "attributes" (n,A). The header has `sha256` (checksum of
    ...                         the tensors) and `manifest` (digest of the manifest the shard belongs to)

`features.write` writes this format. It is read through memory maps, so a split may be larger than memory.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vreid_ext._files import flush, whole_file

FORMAT = 1
MANIFEST = "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"features: expected a folder of features, got {str(folder)!r}, which has no {MANIFEST}"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"features: {str(path)!r} is damaged: {error}") from error
    if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
        raise ValueError(f"features: expected format {FORMAT}, got {manifest['format']!r} in {str(path)!r}")
    try:
        valid = _is_valid(manifest)
    except (KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise ValueError(f"features: {str(path)!r} is damaged: entries are missing or of a wrong type")
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    with whole_file(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest), encoding="utf-8")
    flush(folder)


def _is_valid(manifest: dict[str, Any]) -> bool:
    """Whether all entries are valid. Some invalid entries raise KeyError, TypeError or AttributeError."""
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
    """SHA-256 of the entries of a manifest that determine the rows."""
    entries = {key: manifest[key] for key in ("identity", "tracklets", "splits", "shard_rows")}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def shard_name(number: int) -> str:
    return f"rows-{number:06d}.safetensors"


def write_shard(path: Path, tensors: Mapping[str, Tensor], of: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()}
    total = checksum({name: tensor.numpy() for name, tensor in plain.items()})
    try:
        with whole_file(path) as temporary:
            save_file(plain, temporary, {"manifest": of, "sha256": total})
    except (SafetensorError, OSError) as error:
        raise OSError(f"features: {str(path)!r} could not be written: {error}") from error


def map_shard(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a shard, memory-mapped, and the metadata in its header."""
    from safetensors import safe_open

    # For torch, `get_tensor` returns a view of the memory-mapped file; for NumPy it copies the tensor.
    with safe_open(path, "pt") as file:
        notes, names = file.metadata() or {}, file.keys()
        tensors: dict[str, np.ndarray] = {name: file.get_tensor(name).numpy() for name in names}
    for array in tensors.values():
        array.flags.writeable = False
    return tensors, notes


def checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes and values."""
    total = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        total.update(f"{name} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def damage_of(path: Path, of: str) -> str | None:
    """Describe the damage of a shard, None if it is intact. `of` is the digest of its manifest."""
    from safetensors import SafetensorError

    try:
        tensors, notes = map_shard(path)
    except (OSError, SafetensorError, TypeError, AttributeError) as error:  # the last two: another dtype
        return f"cannot be read ({error})"
    if notes.get("manifest", notes.get("of")) != of:  # older files have the key "of"
        return "belongs to other features"
    return None if notes.get("sha256") == checksum(tensors) else "has a wrong checksum"
