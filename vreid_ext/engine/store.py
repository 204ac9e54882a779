"""Extraction to disk: shared by processes, and going on where it was interrupted (`metrics.stored`)."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext.data import Tracklet
from vreid_ext.data.files import nfc
from vreid_ext.engine.checkpoint import flush
from vreid_ext.engine.config import Recipe
from vreid_ext.engine.distributed import is_main, main_writes, union, wait_for_everyone
from vreid_ext.losses.gather import world
from vreid_ext.metrics.stored import (
    FORMAT,
    MANIFEST,
    StoredFeatures,
    checksum,
    damage_of,
    digest,
    map_shard,
    read_manifest,
    shard_name,
)


def identity_of(
    model: nn.Module, recipe: Recipe, frames: int, tracklets: Sequence[Tracklet]
) -> dict[str, Any]:
    """All that features depend on but the images, as plain values by the name of a recipe's key."""
    joints = {str(n): item.joints for n, item in enumerate(tracklets) if item.joints is not None}
    drawn = {"seed": recipe.seed} if recipe.eval.sampling == "random" else {}
    return drawn | {
        "weights": _sha256(model.state_dict()),
        "model": {key: value for key, value in recipe.model.items() if key != "weights"},
        "input.height": recipe.input.height,
        "input.width": recipe.input.width,
        "eval.sampling": recipe.eval.sampling,
        "eval.frames": frames,
        "dataset.name": recipe.dataset.name,
        "dataset.options": {key: value for key, value in recipe.dataset.options.items() if value is not None},
        "dataset.joints": _sha256(joints) if joints else None,
        "dataset.black_box": [recipe.dataset.black_box, recipe.dataset.black_box_seed],
    }


def store_features(
    folder: Path,
    identity: Mapping[str, Any],
    tracklets: Sequence[Tracklet],
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
        embed: gives for each of some ranges of `tracklets` the tensors that make its shard.
        splits: rows of each split.
        shard_rows: tracklets of a shard; a folder that exists keeps its own.
        about: further entries of the manifest.

    Raises:
        ValueError: the folder holds features of something else, or other files; nothing is written then.
        InUseError: another process writes features there.
        OSError: the disk is full or cannot be written; the shards that are there stay.
    """
    rows = [
        {
            "name": item.name,
            "pid": item.pid,
            "camid": item.camid,
            "frames": len(item),
            "images": _images_of(item),
        }
        for item in tracklets
    ]
    wanted = {"format": FORMAT, "identity": identity, **about, "shard_rows": shard_rows, "tracklets": rows}
    # Several may read features that are complete, also where nobody can write.
    with main_writes("features", folder, inside=True, needed=not _is_complete(folder)):
        if is_main():
            _claim(folder, wanted | {"splits": splits})
        wait_for_everyone()
        manifest = read_manifest(folder)
        of, shard_rows = digest(manifest), manifest["shard_rows"]
        blocks = [
            range(first, min(first + shard_rows, len(rows))) for first in range(0, len(rows), shard_rows)
        ]
        rank, size = world()
        missing = union(
            n for n in range(rank, len(blocks), size) if not _is_whole(folder / shard_name(n), of)
        )
        mine = missing[rank::size]
        for number, tensors in zip(mine, embed([blocks[number] for number in mine]), strict=True):
            _write_shard(folder / shard_name(number), tensors, of)
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
                f"features: {str(folder)!r} holds other files, wanted a new or an empty folder, or features "
                "to go on with"
            )
        folder.mkdir(parents=True, exist_ok=True)
        _write_manifest(folder, wanted)
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


def _write_shard(path: Path, tensors: Mapping[str, Tensor], of: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()}
    total = checksum({name: tensor.numpy() for name, tensor in plain.items()})
    temporary = path.with_name(f".{path.name}.partial")
    try:
        save_file(plain, temporary, {"of": of, "sha256": total})
        flush(temporary)
    except (SafetensorError, OSError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"features: {str(path)!r} could not be written: {error}") from error
    temporary.rename(path)


def _complete(folder: Path, manifest: dict[str, Any], blocks: Sequence[range]) -> None:
    """Write the manifest once more, with what the shards turned out to be."""
    shards = []
    for number, block in enumerate(blocks):
        path = folder / shard_name(number)
        tensors, notes = map_shard(path)
        size = {"file": path.name, "rows": len(block), "bytes": path.stat().st_size}
        shards.append(size | {"sha256": notes["sha256"]})
    widths = {name: array.shape[1] for name, array in tensors.items()}
    _write_manifest(folder, manifest | {"widths": widths, "shards": shards})


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    temporary = folder / f".{MANIFEST}.partial"
    temporary.write_text(json.dumps(manifest), encoding="utf-8")
    flush(temporary)
    temporary.rename(folder / MANIFEST)
    flush(folder)


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        total.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _images_of(tracklet: Tracklet) -> str:
    """Digest of the names of its images in their order: other names are other images, wherever they lie."""
    names = "/".join(nfc(os.path.basename(path)) for path in tracklet.paths)
    return hashlib.sha256(os.fsencode(names)).hexdigest()[:16]


def _apart(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> list[Any]:
    """Two rows without the entries that they share."""
    if a is None or b is None:
        return [a, b]
    return [{key: row[key] for key in row if a.get(key) != b.get(key)} for row in (a, b)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
