"""A network of an ONNX or OpenVINO file as a frozen model, and the recipe to evaluate it with."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vreid_ext import _checks
from vreid_ext.data.clips.transforms import IMAGENET_MEAN, IMAGENET_STD
from vreid_ext.models.clips import by_length, check_clips
from vreid_ext.models.registry import register_model
from vreid_ext.nn.frames import mean_over_frames
from vreid_ext.runtimes import OpenedNetwork, open_network

_DEFAULT_SIZE = (256, 128)


@register_model("network")
class Network(nn.Module):
    """A frozen network of a file, for evaluation, extraction and search.

    A network of images (N,3,h,w) -> (N,D) gives one feature per frame; the feature of a clip is the mean over
    its valid frames. A file of `vreid export`, which takes clips, is used as it is.

    Args:
        num_classes: ignored; a file has no classifier.
        weights: the `.onnx` file, or the `.xml` file with the `.bin` file beside it.
        values: range of the pixels that the network expects: "imagenet" (mean and standard deviation of
            ImageNet), "unit" (0 to 1), or "bytes" (0 to 255). "auto": "bytes" if the file has an input of
            integers or states that it normalizes them itself, else "imagenet".
        color: order of the channels that the network expects: "rgb", "bgr", or "auto": "bgr" if the file
            states that it reverses them, else "rgb".
        runtime: "onnxruntime", "openvino", or "auto" (`runtimes.open_network`).
        threads: number of threads; 0: chosen by the runtime.

    Call: `model(clips, valid=None)` with clips (B,T,3,h,w) normalized with ImageNet's mean and standard
    deviation, and valid (B,T) bool; returns the feature (B,D). The network runs on the CPU.

    Attributes:
        size: (height, width) of the input, or None if it is dynamic.
        of_clips: whether the file takes clips.

    Raises:
        ImportError: the runtime is not installed.
        ValueError: the file is no such network, or an option is unknown. In training: the model is frozen.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        weights: str | Path,
        values: Literal["auto", "imagenet", "unit", "bytes"] = "auto",
        color: Literal["auto", "rgb", "bgr"] = "auto",
        runtime: Literal["auto", "onnxruntime", "openvino"] = "auto",
        threads: int = 0,
    ) -> None:
        super().__init__()
        _checks.choice("values", values, ("auto", "imagenet", "unit", "bytes"))
        _checks.choice("color", color, ("auto", "rgb", "bgr"))
        _checks.integer("threads", threads, 0)
        file = Path(weights)
        self._network = network = open_network(file, None if runtime == "auto" else runtime, threads or None)
        self.of_clips = _takes_clips(network)
        (port,) = network.inputs
        height, width = port.shape[-2:]
        self.size = None if height is None or width is None else (height, width)
        normalizes = "mean_values" in network.preprocessing or "scale_values" in network.preprocessing
        in_bytes = port.dtype == torch.uint8 or normalizes
        self.values = ("bytes" if in_bytes else "imagenet") if values == "auto" else values
        reverses = network.preprocessing.get("reverse_input_channels", "").lower() in ("true", "yes", "1")
        self.color = ("bgr" if reverses else "rgb") if color == "auto" else color
        # In the state dict, so that features of another file have another identity (`features.identity_of`).
        self.register_buffer("digest", torch.frombuffer(bytearray(_digest(file)), dtype=torch.uint8))

    def forward(self, clips: Tensor, valid: Tensor | None = None) -> Tensor:
        check_clips(clips, valid)
        if self.training:
            raise ValueError("model: expected one that can be trained, got 'network', which is frozen")
        pixels = self._prepared(clips.cpu())
        present = None if valid is None else valid.cpu()
        if self.of_clips:
            return by_length(self._network.run, pixels, present).to(clips.device)
        frames = pixels.flatten(0, 1)
        chosen = torch.ones(len(frames), dtype=torch.bool) if present is None else present.flatten()
        computed = torch.cat(list(self._features(frames[chosen])))
        features = computed.new_zeros(len(frames), computed.shape[1])
        features[chosen] = computed
        return mean_over_frames(features.unflatten(0, clips.shape[:2]), present).to(clips.device)

    def _features(self, images: Tensor) -> Iterator[Tensor]:
        """Features (n,D) of images, in batches of the size that the network has, or all at once."""
        (port,) = self._network.inputs
        size = port.shape[0] or len(images)
        for part in images.split(size):
            missing = size - len(part)
            whole = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part
            yield self._network.run(whole.contiguous())[: len(part)].flatten(1).float()

    def _prepared(self, clips: Tensor) -> Tensor:
        """The pixels that the network expects, of normalized clips."""
        if self.values != "imagenet":
            mean, std = (
                torch.tensor(each, dtype=torch.float32, device="cpu").view(3, 1, 1)
                for each in (IMAGENET_MEAN, IMAGENET_STD)
            )
            clips = (clips.float() * std + mean).clamp(0, 1)
            if self.values == "bytes":
                clips = (clips * 255).round()
        if self.color == "bgr":
            clips = clips.flip(2)
        return clips.to(self._network.inputs[0].dtype)


def network_state(file: Path) -> dict[str, Any]:
    """What `checkpoint.read_state` returns for a network: a recipe and a number of classes.

    For a file of `vreid export` the recipe has the settings of its metadata. For other files it has the size
    of the input, one clip for every frame, and the cosine distance.

    Raises:
        ValueError: see `open_network`; also if the features need a distance function of the model.
    """
    network = open_network(file)
    about = json.loads(network.metadata or "{}")
    _takes_clips(network)  # raises an error for other networks
    height, width = network.inputs[0].shape[-2:]
    size = _DEFAULT_SIZE if height is None or width is None else (height, width)
    evaluation = {"frames": [1], "sampling": "dense", "metric": "cosine"}
    if features := about.get("features"):
        evaluation = {
            "frames": [each["eval.frames"] for each in features],
            "sampling": features[0]["eval.sampling"],
            "metric": about["metric"],
        }
        size = (features[0]["input.height"], features[0]["input.width"])
        if about["metric"] not in ("cosine", "euclidean"):
            raise ValueError(
                f"network: expected features with a metric, got {str(file)!r}, which needs "
                f"{about['metric']}; use the checkpoint"
            )
    recipe = {
        "name": file.stem,
        "model": {"name": "network", "weights": str(file.absolute())},
        "input": {"height": size[0], "width": size[1]},
        "eval": evaluation,
    }
    return {"recipe": recipe, "num_classes": 1}


def _takes_clips(network: OpenedNetwork) -> bool:
    """Whether the input is clips (B,T,3,h,w), not images (N,3,h,w)."""
    got = ", ".join(f"{port.name} {port.shape}" for port in network.inputs)
    if len(network.inputs) != 1 or len(network.inputs[0].shape) not in (4, 5):
        raise ValueError(
            f"network: expected one input, images (N,3,h,w) or clips (B,T,3,h,w), got {got} in "
            f"{str(network.file)!r}"
        )
    (port,) = network.inputs
    if port.shape[-3] not in (3, None):
        raise ValueError(f"network: expected 3 channels before height and width, got {got}")
    return len(port.shape) == 5


def _digest(file: Path) -> bytes:
    """SHA-256 of the file and of the weights beside it, if there are any (.bin, or .onnx.data)."""
    digest = hashlib.sha256(file.read_bytes())
    for weights in (file.with_suffix(".bin"), file.with_name(f"{file.name}.data")):
        if weights.is_file() and (file.suffix == ".xml") == (weights.suffix == ".bin"):
            digest.update(weights.read_bytes())
    return digest.digest()
