"""Checkpoints: tensors in safetensors files, numbers in JSON. No pickle is involved.

A checkpoint is a folder:

    weights.safetensors     parameters and buffers of the model; with `train.ema`, their moving average
    current.safetensors     with `train.ema`: the weights with which the training is resumed
    optimizer.safetensors   tensors of the optimizer, "<parameter index>.<name>"
    objective.safetensors   parameters and buffers of the losses, if there are any
    state.json              recipe, number of classes, position in the run, parameter groups of the optimizer

It is written under a temporary name, flushed to disk and renamed. A folder with the final name is therefore
always complete, even if the process is killed or the disk is full.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vreid_ext._files import flush
from vreid_ext.engine.network import network_state
from vreid_ext.runtimes import SUFFIXES, is_network
from vreid_ext.weights.locate import located_system

FORMAT = 1


@dataclass
class Position:
    """Position in a training run.

    Attributes:
        epoch: current epoch, from 0.
        batch: number of finished batches in the current epoch.
        step: number of optimizer steps since the start.
        sums: sums of the loss terms in the current epoch.
        log_bytes: length of the log.
        scaler: state of the gradient scaler (fp16).
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    log_bytes: int = 0
    scaler: dict[str, float] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    recipe: Mapping[str, Any],
    num_classes: int,
    *,
    current: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    objective: nn.Module | None = None,
    position: Position | None = None,
) -> None:
    """Write a checkpoint atomically: `folder` is either complete or does not exist.

    Args:
        current: the model in training, if `model` is its moving average.

    Raises:
        ValueError: `folder` exists.
        OSError: the disk is full or not writable. Existing checkpoints are not changed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if folder.exists():
        raise ValueError(f"folder: expected a new folder, got {str(folder)!r}, which exists")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    state: dict[str, Any] = {"format": FORMAT, "recipe": recipe, "num_classes": num_classes}
    try:
        save_file(_plain(model.state_dict()), temporary / "weights.safetensors")
        if current is not None:
            save_file(_plain(current.state_dict()), temporary / "current.safetensors")
        if optimizer is not None:
            tensors, state["optimizer"] = _split(optimizer.state_dict())
            save_file(tensors, temporary / "optimizer.safetensors")
        if objective is not None and (tables := objective.state_dict()):
            save_file(_plain(tables), temporary / "objective.safetensors")
        if position is not None:
            state["position"] = asdict(position)
        (temporary / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        for file in (*temporary.iterdir(), temporary):
            flush(file)
        temporary.rename(folder)
        flush(folder.parent)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError):  # raised for a full disk instead of OSError
            raise OSError(f"checkpoint {str(folder)!r} could not be written: {error}") from error
        raise


def checkpoints(run: Path) -> list[Path]:
    """All complete checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if (path / "state.json").is_file())


def resolve_checkpoint(path: Path) -> Path:
    """The checkpoint of a path.

    Args:
        path: a checkpoint; the folder of a run, whose newest checkpoint is returned; a folder of
            `save_pretrained`, or its address `hf:OWNER/NAME[@REVISION]`; or a network file (`.onnx`, `.xml`),
            which is returned as it is.

    Raises:
        ValueError: there is no checkpoint.
        FileNotFoundError, ImportError: the address cannot be resolved (`weights.locate`).
    """
    path = located_system(path)
    if (path / "state.json").is_file() or is_network(path):
        return path
    found = checkpoints(path)
    if not found:
        raise ValueError(
            f"checkpoint: expected a checkpoint, a run that contains one, or a network file "
            f"({', '.join(SUFFIXES)}), got {str(path)!r}"
        )
    return found[-1]


def run_folder(checkpoint: Path) -> Path:
    """The folder for the results of a checkpoint: that of its run, else its own, or that of the file."""
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent
    return checkpoint if checkpoint.is_dir() else checkpoint.parent


def read_state(folder: Path) -> dict[str, Any]:
    """Read state.json: format, recipe, num_classes and, if written by training, position and optimizer.

    For a network file, the recipe and num_classes of `network_state`.
    """
    if is_network(folder):
        return network_state(folder)
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint {str(folder)!r}: state.json is damaged: {error}") from error
    if isinstance(state, dict) and state.get("format", FORMAT) != FORMAT:
        raise ValueError(f"checkpoint {str(folder)!r}: expected format {FORMAT}, got {state['format']!r}")
    try:
        state["recipe"]["model"]["name"], int(state["num_classes"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"checkpoint {str(folder)!r}: state.json is damaged: {error!r}") from error
    return state


def read_position(folder: Path) -> Position:
    """Read the position of the run from a checkpoint.

    Raises:
        ValueError: the position is missing or damaged.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    values: Any = read_state(folder).get("position")
    try:
        # Checks names and types only. The merged values are not used: integers in `scaler` become floats.
        OmegaConf.merge(OmegaConf.structured(Position), values)
        return Position(**values)
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise ValueError(f"checkpoint {str(folder)!r}: its position is damaged: {error}") from error


def load_weights(folder: Path, model: nn.Module, description: str, *, current: bool = False) -> None:
    """Load the weights of a checkpoint into `model`. If any tensor does not match, none is loaded.

    Args:
        folder: the checkpoint.
        model: the model.
        description: description of `model` for the message.
        current: load the weights with which the training is resumed, if they are not those of the model.

    Raises:
        ValueError: the checkpoint belongs to another model (the message describes both), or its file is
            damaged.
    """
    other = folder / "current.safetensors"
    weights = _read(other if current and other.is_file() else folder / "weights.safetensors")
    state_dict = model.state_dict()
    mismatched = sorted(
        key for key in state_dict.keys() | weights.keys()
        if key not in state_dict or key not in weights or state_dict[key].shape != weights[key].shape
    )  # fmt: skip
    if mismatched:
        state = read_state(folder)
        saved = describe_model(state["recipe"]["model"], state["num_classes"])
        raise ValueError(
            f"checkpoint {str(folder)!r}: expected {description}, got {saved}; "
            f"{len(mismatched)} tensors do not match, the first is {mismatched[0]!r}"
        )
    model.load_state_dict(weights)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the state of an optimizer from a checkpoint.

    Raises:
        ValueError: the checkpoint is damaged or belongs to another optimizer.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in _read(folder / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    try:
        optimizer.load_state_dict({"state": state, "param_groups": read_state(folder)["optimizer"]})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint {str(folder)!r}: its optimizer is damaged: {error!r}") from error


def load_objective(folder: Path, objective: nn.Module) -> None:
    """Restore the parameters and buffers of the losses from a checkpoint, if there are any."""
    if objective.state_dict():
        objective.load_state_dict(_read(folder / "objective.safetensors"))


def describe_model(model: Mapping[str, Any], num_classes: int) -> str:
    """Description of a model for messages: name, options and number of classes."""
    options = ", ".join(f"{key}={value}" for key, value in model.items() if key != "name")
    return f"model {model['name']!r} ({options or 'default options'}; {num_classes} classes)"


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"checkpoint: {str(path)!r} is damaged: {error}") from error


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def _split(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], Any]:
    """Split an optimizer's state dict into tensors, named "<index>.<name>", and its parameter groups."""
    tensors = {
        f"{index}.{name}": value for index, slots in state["state"].items() for name, value in slots.items()
        if value is not None
    }  # fmt: skip
    return _plain(tensors), state["param_groups"]
