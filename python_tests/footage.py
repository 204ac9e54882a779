"""A small data set of two cameras, and a folder of features for it, written without a model."""

import json
from pathlib import Path

import torch
from PIL import Image

from vreid_ext.data import build_dataset
from vreid_ext.engine.features import images_of
from vreid_ext.features.write import store_features

# person, camera, tracklet, first frame; 10 frames per second
TRACKLETS = [
    ("Anna", "gate", "0000", 0),
    ("Anna", "street", "0000", 300),
    ("Anna", "gate", "0004", 900),
    ("Bo's", "gate", "0001", 100),
    ("Bo's", "street", "0001", 110),
    ("gate-unknown0002", "gate", "0002", 200),
]
FRAMES = 3
MODEL = {"weights": "abc", "model": {"name": "sta"}, "input.height": 64}


def write_footage(root: Path) -> Path:
    """Images and boxes files as `vreid tracklets` writes them, in the layout of tracklet_folder."""
    for number, (person, camera, tracklet, first) in enumerate(TRACKLETS):
        folder = root / person / camera / tracklet
        folder.mkdir(parents=True)
        for frame in range(first, first + FRAMES):
            Image.new("RGB", (16, 32), (40 * number, 90, 160)).save(folder / f"{frame:06}.jpg")
    for camera in ("gate", "street"):
        (root / f"tracklets-{camera}.json").write_text(json.dumps({"fps": 10, "tracklets": []}))
    return root


def write_features(folder: Path, root: Path, *, metric: str = "cosine", **changes: object) -> Path:
    """Features of the footage: persons are far apart, tracklets of one person near each other."""
    dataset = build_dataset("tracklet_folder", root)
    people = sorted({item.pid for item in dataset.gallery})
    generator = torch.Generator().manual_seed(0)
    centers = torch.eye(8)[: len(people)]
    features = torch.stack(
        [
            centers[people.index(item.pid)] + 0.05 * torch.randn(8, generator=generator)
            for item in dataset.gallery
        ]
    )
    tracklets = [
        {
            "name": item.name,
            "pid": item.pid,
            "camid": item.camid,
            "frames": len(item),
            "images": images_of(item),
        }
        for item in dataset.gallery
    ]
    rows = list(range(len(tracklets)))
    store_features(
        folder,
        {**MODEL, "dataset.name": "tracklet_folder", "dataset.options": {}, **changes},
        tracklets,
        lambda blocks: ({"features": features[list(block)]} for block in blocks),
        splits={"query": rows, "gallery": rows},
        shard_rows=4,
        metric=metric,
        protocol="own tracklets",
        root=str(root),
    )
    return folder


def threshold_content(value: float, low: float, high: float, **changes: object) -> dict[str, object]:
    """The content of a threshold for these features."""
    one = {"value": value, "low": low, "high": high}
    return {
        "format": 1, "threshold": one, "asked": 1e-3, "fmr": one, "fnmr": one, "confidence": 0.95,
        "genuine": 9, "impostors": 9, "persons": 9, "metric": "cosine", "dimensions": 8, "model": MODEL,
        "features": "", "dataset": "", "protocol": "", "scores": {"best": [], "random": []}, **changes,
    }  # fmt: skip
