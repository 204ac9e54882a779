"""Features on disk: safetensors for the numbers, JSON for what each row is."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vreid_ext.engine.build import black_box_of, dataset_of, transforms_of
from vreid_ext.engine.distributed import default_device
from vreid_ext.engine.evaluate import open_checkpoint, write_json
from vreid_ext.engine.extract import extract_features


def export_features(checkpoint: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Embed query and gallery of a checkpoint's data set, and write them to a new folder.

    `out/features.safetensors` holds one float32 tensor (N,D) per split, `out/manifest.json` the recipe and,
    for each split, the name, pid, camid and number of frames of every row. The features are those of the
    first test length of the recipe.

    Returns:
        The manifest.

    Raises:
        ValueError: `out` is not empty.
    """
    from safetensors.torch import save_file

    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out: {str(out)!r} exists, wanted a new or an empty folder")
    model, recipe, folder = open_checkpoint(checkpoint, overrides)
    dataset = dataset_of(recipe.dataset, recipe.model)
    _, transform = transforms_of(recipe.input)
    device = default_device()
    model.to(device)
    features, splits = {}, {}
    for split, tracklets in (("query", dataset.query), ("gallery", dataset.gallery)):
        features[split] = extract_features(
            model,
            tracklets,
            frames=recipe.eval.frames[0],
            sampling=recipe.eval.sampling,
            transform=transform,
            chunk=recipe.eval.chunk,
            workers=recipe.train.workers,
            device=device,
            black_box=black_box_of(recipe.dataset),
        )
        splits[split] = [
            {"name": item.name, "pid": item.pid, "camid": item.camid, "frames": len(item)}
            for item in tracklets
        ]
    manifest = {
        "checkpoint": str(folder),
        "recipe": recipe.to_dict(),
        "protocol": dataset.protocol,
        "dimensions": features["query"].shape[1],
        "splits": splits,
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(features, out / "features.safetensors")
    write_json(out / "manifest.json", manifest)
    return manifest
