"""Checkpoints of tensors (safetensors) and numbers (JSON): nothing in them is ever unpickled.

A checkpoint is a folder:

    weights.safetensors     the model's parameters and buffers
    optimizer.safetensors   the optimizer's tensors, "<parameter index>.<name>"
    objective.safetensors   the tables of the losses, where they keep any
    state.json              recipe, classes, position in the run, the optimizer's numbers

It is written under a temporary name, flushed to the disk and renamed, so that a folder under its final
name is always whole, whatever kills the process or fills the disk.
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

FORMAT = 1


@dataclass
class Position:
    """Where a run stands: `batch` batches of `epoch` are done, `step` optimizer steps in all.

    sums: the running sums of the epoch's losses; log_bytes: the length of the log at this point;
    scaler: the state of the fp16 loss scaler.
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
    optimizer: torch.optim.Optimizer | None = None,
    objective: nn.Module | None = None,
    position: Position | None = None,
) -> None:
    """Write a checkpoint; `folder` appears complete or not at all.

    Raises:
        ValueError: `folder` exists.
        OSError: the disk is full or cannot be written; what was there before is untouched.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if folder.exists():
        raise ValueError(f"folder: {str(folder)!r} exists; a checkpoint is never overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    state: dict[str, Any] = {"format": FORMAT, "recipe": recipe, "num_classes": num_classes}
    try:
        save_file(_plain(model.state_dict()), temporary / "weights.safetensors")
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
        if isinstance(error, SafetensorError):  # which is how it tells of a full disk
            raise OSError(f"checkpoint {str(folder)!r} could not be written: {error}") from error
        raise


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if (path / "state.json").is_file())


def resolve_checkpoint(path: Path) -> Path:
    """The checkpoint folder meant by `path`: itself, or the newest of a run's folder."""
    if (path / "state.json").is_file():
        return path
    found = checkpoints(path)
    if not found:
        raise ValueError(f"checkpoint: {str(path)!r} is neither a checkpoint nor a run that holds one")
    return found[-1]


def read_state(folder: Path) -> dict[str, Any]:
    """The numbers of a checkpoint: format, recipe, num_classes and, from training, position and optimizer."""
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
    """Where the run stood at a checkpoint.

    Raises:
        ValueError: it does not say.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    values: Any = read_state(folder).get("position")
    try:
        # Only to see that names and types fit: it would make floats of the whole numbers in `scaler`.
        OmegaConf.merge(OmegaConf.structured(Position), values)
        return Position(**values)
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise ValueError(f"checkpoint {str(folder)!r}: its position is damaged: {error}") from error


def load_weights(folder: Path, model: nn.Module, description: str) -> None:
    """Load a checkpoint's weights into `model`, all of them or none.

    Args:
        description: what `model` is, for the error.

    Raises:
        ValueError: the checkpoint is of another model, and the message names both; or its file is damaged.
    """
    weights = _read(folder / "weights.safetensors")
    wanted = model.state_dict()
    odd = sorted(
        key for key in wanted.keys() | weights.keys()
        if key not in wanted or key not in weights or wanted[key].shape != weights[key].shape
    )  # fmt: skip
    if odd:
        state = read_state(folder)
        holds = describe_model(state["recipe"]["model"], state["num_classes"])
        raise ValueError(
            f"checkpoint {str(folder)!r}: expected {description}, got {holds}; "
            f"{len(odd)} tensors do not fit, the first is {odd[0]!r}"
        )
    model.load_state_dict(weights)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put an optimizer back to where the checkpoint left it.

    Raises:
        ValueError: the checkpoint is damaged, or of another optimizer.
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
    """Put the tables of the losses back, where they keep any."""
    if objective.state_dict():
        objective.load_state_dict(_read(folder / "objective.safetensors"))


def describe_model(model: Mapping[str, Any], num_classes: int) -> str:
    """A model in words: its name, options and classes."""
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
    """An optimizer's state as tensors by "<index>.<name>" and JSON-ready parameter groups."""
    tensors = {
        f"{index}.{name}": value for index, slots in state["state"].items() for name, value in slots.items()
        if value is not None
    }  # fmt: skip
    return _plain(tensors), state["param_groups"]
