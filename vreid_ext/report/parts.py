"""Pictures of tracklets with their joints and body parts."""

from pathlib import Path

import torch

from vreid_ext.data import ClipDataset, TrackletDataset, attach_joints
from vreid_ext.report.clips import plot_parts


def picture_tracklets(dataset: TrackletDataset, joints: Path, count: int, frames: int = 8) -> list[Path]:
    """Draw `count` evenly spaced tracklets of a data set as `parts-<n>.png` next to the joints file.

    Args:
        frames: number of evenly spaced frames per tracklet.
    """
    data = attach_joints(dataset, joints)
    tracklets = list(data.by_name().values())
    clips = ClipDataset(tracklets, frames, "evenly")
    pictures = []
    for number, index in enumerate(
        torch.linspace(0, len(tracklets) - 1, count, dtype=torch.float64, device="cpu").long().tolist(),
        start=1,
    ):
        item = clips[index]
        path = joints.with_name(f"parts-{number}.png")
        pictures.append(plot_parts(item["clip"], item["joints"], path, title=tracklets[index].name))
    return pictures
