"""Training for the GPU report: ResNet-50 STA in bfloat16 and channels_last on a rendered set."""

from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from gpu_timing import milliseconds, quantiles
from harness import synchronize
from torch import Tensor

from vreid_ext.data import ClipDataset, PKBatchSampler, build_dataset
from vreid_ext.data.clips.transforms import train_transform
from vreid_ext.data.synth import synthesize
from vreid_ext.engine.loader import load
from vreid_ext.losses import CrossEntropyLoss, TripletLoss
from vreid_ext.models.sta import STA


class Trainer:
    """A model with its losses and optimizer. `backend` is used for all ops between backbone and loss."""

    def __init__(self, people: int, device: str, tiny: bool) -> None:
        torch.manual_seed(0)
        model = STA(people, backbone="resnet18" if tiny else "resnet50")
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-2, momentum=0.9)
        self.device = device

    def step(self, clips: Tensor, labels: Tensor, backend: str = "auto") -> Tensor:
        assert self.model.inter_frame is not None
        self.model.sta.backend = self.model.inter_frame.backend = backend
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16):
            output = self.model(clips)
            loss = CrossEntropyLoss()(output.logits, labels) + output.extras["inter_frame"].mean()
        loss = loss + TripletLoss(0.3, backend=backend)(output.feature.float(), labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def backbone_step(self, clips: Tensor, gradient: Tensor | None = None) -> Tensor:
        """A step of the backbone only, with a given or random gradient of its maps; returns that gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16):
            maps = self.model.maps(clips)
        gradient = torch.randn_like(maps) if gradient is None else gradient
        maps.backward(gradient)
        self.optimizer.step()
        return gradient


def train(folder: Path, device: str, tiny: bool, seconds: float, workers: int) -> dict[str, Any]:
    """Train on a set rendered into `folder`, then compare the times of a step with and without our ops.

    Returns:
        clips per second from image file to updated weights, and of the step alone; the mean loss of the first
        and of the last tenth of the steps; the fraction of the step outside the backbone, with our ops and in
        eager mode.
    """
    steps, p, k, frames, height, width = (4, 2, 2, 2, 64, 32) if tiny else (300, 16, 4, 4, 256, 128)
    synthesize(folder, ids=4 * p, cameras=2, tracklets=2, frames=2 * frames)
    data = build_dataset("mars", folder)
    dataset = ClipDataset(data.train, frames, "restricted", train_transform(height, width), data.labels)
    sampler = PKBatchSampler([tracklet.pid for tracklet in data.train], p, k, batches=steps)
    trainer = Trainer(data.num_train_pids, device, tiny)

    losses: list[Tensor] = []
    begin, warm = perf_counter(), max(1, steps // 10)
    start = begin
    for batch in load(dataset, list(sampler), workers):
        clips = batch["clip"].to(device)
        clips = (
            clips.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, clips.shape[:2])
        )
        labels = batch["label"].to(device)
        losses.append(trainer.step(clips, labels))
        if len(losses) == warm:
            synchronize()
            start = perf_counter()
        if len(losses) > 2 * warm and perf_counter() - begin > seconds / 2:
            break
    synchronize()
    elapsed = perf_counter() - start

    gradient = trainer.backbone_step(clips)
    runs = {
        "ours": lambda: trainer.step(clips, labels),
        "eager head": lambda: trainer.step(clips, labels, "reference"),
        "backbone": lambda: trainer.backbone_step(clips, gradient),
    }
    each = max(milliseconds(run, device) for run in runs.values()) / 1e3
    rounds = 2 if tiny else max(2, min(50, int(seconds / 2 / (3 * each))))
    times = {name: found[1] for name, found in quantiles(runs, device, rounds).items()}
    return {
        "clips": p * k,
        "frames": frames,
        "size": [height, width],
        "workers": workers,
        "steps": len(losses),
        "loss of the first and last steps": [
            torch.stack(part).mean().item() for part in (losses[:warm], losses[-warm:])
        ],
        "clips per second": (len(losses) - warm) * p * k / elapsed,
        "clips per second of the step": 1e3 * p * k / times["ours"],
        "milliseconds": times,
        "share outside the backbone": 1 - times["backbone"] / times["ours"],
        "share with the eager head": 1 - times["backbone"] / times["eager head"],
    }
