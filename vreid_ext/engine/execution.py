"""Device, mixed precision and data parallelism of a run."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vreid_ext.distributed import default_device, world

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Execution:
    """Runs forward pass, backward pass and optimizer step on the device and precision of a run.

    Args:
        precision: "no", "bf16" or "fp16": autocast dtype of the model's forward pass.
        idle: whether some parameters may get no gradient in a step (`find_unused_parameters` of
            DistributedDataParallel).

    Attributes:
        device: the accelerator if there is one, else the CPU.
        scaler: gradient scaler for fp16, else None.

    Raises:
        ValueError: fp16 on the CPU.
    """

    def __init__(self, precision: str, *, idle: bool) -> None:
        self.device, self._idle = default_device(), idle
        if precision == "fp16" and self.device.type == "cpu":
            raise ValueError("train.precision: expected 'no' or 'bf16' on a CPU, got 'fp16'")
        self._dtype = _DTYPES.get(precision)
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap the model in DistributedDataParallel if there are several processes (`torchrun`)."""
        if world()[1] == 1:
            return model
        devices = None if self.device.type == "cpu" else [torch.accelerator.current_device_index()]
        return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=self._idle)

    def unwrap(self, model: nn.Module) -> nn.Module:
        """The inverse of `wrap`."""
        return model.module if isinstance(model, DistributedDataParallel) else model

    def accumulates(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Context manager for gradient accumulation: backward passes do not synchronize gradients."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def forward(self, model: nn.Module, *args: Any, **inputs: Any) -> Any:
        """Call the model under autocast and convert half-precision outputs to float32."""
        if self._dtype is None:
            return model(*args, **inputs)
        with torch.autocast(self.device.type, self._dtype):
            output = model(*args, **inputs)
        return _in_float32(output)

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take an optimizer step. In fp16 the step is skipped if a gradient is not finite."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()


def _in_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _DTYPES.values() else value
    if isinstance(value, Mapping):
        return {key: _in_float32(item) for key, item in value.items()}
    if isinstance(value, tuple):  # a NamedTuple, e.g. `models.TrainingOutput`
        return type(value)(*map(_in_float32, value))
    return value
