"""Baselines of whole steps: torchreid's engine and loader from its wheel, and a plain PyTorch loop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from baselines_mining import MARGIN, cdist
from baselines_ranking import torchreid
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from vreid_ext.data import Tracklet, sample_clip
from vreid_ext.data.clips.transforms import IMAGENET_MEAN, IMAGENET_STD

Batches = Sequence[Sequence[int]]


class PlainClips(Dataset[tuple[Tensor, int]]):
    """Clips of tracklets as a user would read them: Pillow, then torchvision's transforms of the clip."""

    def __init__(
        self,
        tracklets: Sequence[Tracklet],
        frames: int,
        size: tuple[int, int],
        labels: dict[int, int],
        train: bool,
    ) -> None:
        self.tracklets, self.frames, self.labels, self.train = tracklets, frames, labels, train
        self.transform = v2.Compose(
            [
                v2.Resize(size),
                *([v2.RandomHorizontalFlip()] if train else []),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.tracklets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        tracklet = self.tracklets[index]
        chosen = sample_clip(len(tracklet), self.frames, "restricted" if self.train else "evenly").tolist()
        images = [Image.open(tracklet.paths[frame]).convert("RGB") for frame in chosen]
        clip = torch.stack([v2.functional.pil_to_tensor(image) for image in images])
        return self.transform(clip), self.labels.get(tracklet.pid, -1)


def plain_training(model: nn.Module, clips: PlainClips, batches: Batches) -> Callable[[], None]:
    """A function that trains the model for all batches, with eager losses and Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, weight_decay=5e-4)

    def epoch() -> None:
        model.train()
        for images, labels in DataLoader(clips, batch_sampler=batches):
            output = model(images)
            labels = labels.repeat_interleave(len(output.feature) // len(labels))
            loss = F.cross_entropy(output.logits, labels) + cdist(output.feature, labels)
            loss = loss + sum(term.mean() for term in output.extras.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch


def plain_extraction(model: nn.Module, clips: PlainClips, batches: Batches) -> Callable[[], Tensor]:
    """A function that returns one feature (N,D) for each tracklet."""

    @torch.no_grad()
    def extract() -> Tensor:
        model.eval()
        return torch.cat([model(images) for images, _ in DataLoader(clips, batch_sampler=batches)])

    return extract


class OfFrames(nn.Module):
    """A model of clips as torchreid's engine calls it: with the frames (N,3,h,w) of all clips."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        output = self.model(images[:, None])
        return (output.logits, output.feature) if self.training else output


def torchreid_clips(
    tracklets: Sequence[Tracklet], frames: int, size: tuple[int, int], labels: dict[int, int], train: bool
) -> Dataset[dict[str, Any]] | None:
    """torchreid's data set of tracklets; None if its wheel is not installed."""
    data, transforms = torchreid("data.datasets.dataset"), torchreid("data.transforms")
    if data is None or transforms is None:
        return None
    train_transform, test_transform = transforms.build_transforms(*size)
    items = [(tuple(each.paths), labels.get(each.pid, -1), each.camid) for each in tracklets]
    clips: Dataset[dict[str, Any]] = data.VideoDataset(
        items,
        items,
        items,
        seq_len=frames,
        sample_method="random" if train else "evenly",
        transform=train_transform if train else test_transform,
        mode="train" if train else "query",
        verbose=False,
    )
    return clips


def torchreid_engine(model: nn.Module, clips: Any, batches: Batches, out: Path) -> Any:
    """torchreid's video engine with triplet loss and cross-entropy, its log, and Adam."""
    video, writers = torchreid("engine.video"), torchreid("engine.engine")
    assert video is not None
    assert writers is not None
    loader = DataLoader(clips, batch_sampler=batches)
    manager = SimpleNamespace(train_loader=loader, test_loader={}, num_train_pids=clips.num_train_pids)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, weight_decay=5e-4)
    engine = video.VideoTripletEngine(
        manager, OfFrames(model), optimizer, margin=MARGIN, use_gpu=False, label_smooth=False
    )
    engine.max_epoch, engine.writer = 1, writers.SummaryWriter(log_dir=str(out))
    return engine


def torchreid_extraction(engine: Any, clips: Any, batches: Batches) -> Callable[[], Tensor]:
    """A function that returns one feature (N,D) for each tracklet."""

    @torch.no_grad()
    def extract() -> Tensor:
        engine.set_model_mode("eval")
        loader = DataLoader(clips, batch_sampler=batches)
        parsed = (engine.parse_data_for_eval(data) for data in loader)
        return torch.cat([engine.extract_features(images).cpu() for images, _, _ in parsed])

    return extract
