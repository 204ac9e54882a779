"""Check of the order and scale of the colors, with the statistics that the model's training left in it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext.data import ClipDataset
from vreid_ext.data.clips.transforms import IMAGENET_MEAN, Resize, test_transform
from vreid_ext.engine.build import black_box_of
from vreid_ext.engine.doctor.finding import Finding, Group, Skipped
from vreid_ext.engine.doctor.subject import Subject

LIMIT = 1.05  # how many times another form of the input must fit better
_LEVEL = 0.001
_TRACKLETS = 256
_FRAMES = 2
_BATCH = 16
_LEAST = 20
_RESAMPLES = 2000
_GIVEN = "as read"


class _Stop(Exception):  # noqa: N818 -- ends a forward pass
    pass


def colors(subject: Subject) -> Finding:
    """Whether the first batch normalization expects the colors in another order or scale.

    Its running mean mu and variance s^2 are those of its input in the training. With m and v the mean and
    variance of its input for the test pictures, the misfit of a form of the input is the mean over the
    channels of the Kullback-Leibler divergence of the normal distributions

        1/2 (v / s^2 + (m - mu)^2 / s^2 - 1 - ln(v / s^2))

    Forms: as read; red and blue exchanged; 0 to 1 or -1 to 1 or 0 to 255 instead of the normalization;
    blue-green-red from 0 to 255 minus the mean (Caffe); inverted. Something is found if the best of the
    others has a misfit that is more than 1.05 times smaller than that of the pictures as read, in 999 of
    1,000 bootstrap resamples of the tracklets.
    """
    model, recipe = subject.model, subject.recipe
    if model is None or recipe is None or not subject.records:
        raise Skipped("needs the model and the pictures: give the run instead of its features")
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d) and _has_statistics(each)]
    if not norms:
        raise Skipped("the model has no batch normalization with running statistics")
    count = len(subject.features)
    step = max(1, count // _TRACKLETS)
    chosen = list(range(0, count, step))[:_TRACKLETS]
    if len(chosen) < _LEAST:
        raise Skipped(f"needs {_LEAST} tracklets, got {len(chosen)}")
    size = (recipe.input.height, recipe.input.width)
    clips = ClipDataset(
        [subject.records[number] for number in chosen],
        _FRAMES,
        "evenly",
        Resize(size),
        black_box=black_box_of(recipe.dataset),
    )
    normalize = test_transform(*size)
    forms = _forms(normalize)
    device = next(model.parameters()).device
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in forms}
    norm = None
    for first in range(0, len(chosen), _BATCH):
        items = [clips[place] for place in range(first, min(first + _BATCH, len(chosen)))]
        pixels = torch.stack([item["clip"] for item in items])
        extras = {
            name: torch.stack([item[name] for item in items]).to(device)
            for name in getattr(model, "takes", ())
            if name in items[0]
        }
        for name, form in forms.items():
            norm, mean, square = _statistics(model, norms, form(pixels).to(device), extras)
            found[name].append((mean, square))
    assert norm is not None
    moments = {
        name: (torch.cat([mean for mean, _ in parts]), torch.cat([square for _, square in parts]))
        for name, parts in found.items()
    }
    misfit = {
        name: float(_misfit(mean.mean(0), square.mean(0), norm)) for name, (mean, square) in moments.items()
    }
    best = min((name for name in misfit if name != _GIVEN), key=misfit.__getitem__)
    better = _share(moments[_GIVEN], moments[best], norm, len(chosen))
    evidence: dict[str, Any] = {"misfit": misfit, "best": best, "share_better": better, "limit": LIMIT}
    evidence |= {"tracklets": len(chosen), "channels": norm.num_features}
    summary = (
        f"misfit to the first batch normalization {misfit[_GIVEN]:.3g} as read; next: {best}, "
        f"{misfit[best]:.3g}"
    )
    if better < 1 - _LEVEL:
        return Finding("colors", "ok", summary, evidence)
    return Finding(
        "colors",
        "error",
        f"the model expects another form of the pictures: misfit {misfit[_GIVEN]:.3g} as read, "
        f"{misfit[best]:.3g} with {best}",
        evidence,
        f"Prepare the pictures as in the training of the weights ({best}), or train with pictures like "
        "these.",
        (Group("pictures as read", tuple(chosen[:: max(1, len(chosen) // 6)][:6])),),
    )


def _forms(normalize: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Forms of the input, from uint8 frames (B,T,3,H,W)."""

    def normalized(pixels: Tensor) -> Tensor:
        return normalize(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])

    mean = 255 * torch.tensor(IMAGENET_MEAN, dtype=torch.float32).view(3, 1, 1)
    return {
        _GIVEN: normalized,
        "red and blue exchanged": lambda pixels: normalized(pixels.flip(2)),
        "values from 0 to 1": lambda pixels: pixels / 255,
        "values from -1 to 1": lambda pixels: pixels / 127.5 - 1,
        "values from 0 to 255": lambda pixels: pixels.float(),
        "blue, green, red from 0 to 255 minus the mean": lambda pixels: (pixels - mean).flip(2),
        "inverted": lambda pixels: normalized(255 - pixels),
    }


@torch.no_grad()
def _statistics(
    model: nn.Module, norms: list[nn.BatchNorm2d], clips: Tensor, extras: dict[str, Tensor]
) -> tuple[nn.BatchNorm2d, Tensor, Tensor]:
    """The first of the layers that runs, with mean and mean square (B,C) of its input for each clip."""
    seen: list[tuple[nn.BatchNorm2d, Tensor, Tensor]] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        x = inputs[0].double().unflatten(0, (len(clips), -1)).transpose(1, 2).flatten(2)
        seen.append((module, x.mean(2).cpu(), x.square().mean(2).cpu()))
        raise _Stop  # the layers above are not needed

    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        model(clips, None, **extras)
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise Skipped("the model does not use its batch normalization in evaluation")
    return seen[0]


def _misfit(mean: Tensor, square: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Mean divergence over the channels, (...), from moments (...,C)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mu, variance = norm.running_mean.double().cpu(), norm.running_var.double().cpu() + norm.eps
    ratio = (square - mean.square()).clamp(min=0) / variance + norm.eps
    return (ratio + (mean - mu).square() / variance - 1 - ratio.log()).mean(-1) / 2


def _share(
    given: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], norm: nn.BatchNorm2d, count: int
) -> float:
    """Share of bootstrap resamples in which the other form fits more than `LIMIT` times better."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(count, (_RESAMPLES, count), generator=generator)
    weights = torch.zeros(_RESAMPLES, count, dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones((), dtype=torch.float64).expand(_RESAMPLES, count))
    weights /= count
    first, second = (_misfit(weights @ mean, weights @ square, norm) for mean, square in (given, other))
    return float((second * LIMIT < first).double().mean())


def _has_statistics(norm: nn.BatchNorm2d) -> bool:
    return norm.track_running_stats and norm.running_mean is not None
