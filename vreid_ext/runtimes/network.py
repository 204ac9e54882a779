"""What all runtimes have in common: a network in a file, its inputs, and its facts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Port(NamedTuple):
    """An input of a network. shape: sizes, with None for a dynamic one."""

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype


class OpenedNetwork(NamedTuple):
    """A network of a file in a runtime.

    Attributes:
        file: the file.
        runtime: "onnxruntime" or "openvino".
        inputs: the inputs, in order.
        metadata: text of `vreid export` in the file, or "".
        preprocessing: what the file states about its input: `mean_values`, `scale_values` and
            `reverse_input_channels` of OpenVINO's converter. These steps are part of the network.
        run: (inputs as tensors on the CPU) -> first output.
    """

    file: Path
    runtime: str
    inputs: list[Port]
    metadata: str
    preprocessing: dict[str, Any]
    run: Callable[..., Tensor]

    def __repr__(self) -> str:
        return f"OpenedNetwork({str(self.file)!r}, {self.runtime}, {self.inputs})"
