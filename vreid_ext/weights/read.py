"""Reads named tensors from weight files written by other packages."""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vreid_ext.weights.locate import located

# Keys under which training scripts store the weights in a checkpoint; the first one present is used.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "teacher",  # of DINO and SOLIDER, whose own loaders use it
)
_PREVIEW = 3  # number of names listed in an error


class WeightFile(NamedTuple):
    """The content of a weight file.

    Attributes:
        path: the file; for a folder or an address of a model hub, the file in it that was read.
        tensors: the tensors by name, without batch counters.
        wrapper: the keys under which the tensors were found, outermost first.
        entries: the other keys of the checkpoint, for example "epoch".
    """

    path: Path
    tensors: dict[str, Tensor]
    wrapper: tuple[str, ...]
    entries: tuple[str, ...]

    def __repr__(self) -> str:
        return f"WeightFile({str(self.path)!r}, {len(self.tensors)} tensors)"


def read_weights(source: str | Path) -> WeightFile:
    """Read a `.safetensors` file, or a file written by `torch.save` such as `.pth`.

    A file of `torch.save` is loaded with `weights_only=True`, so it cannot execute code. NumPy scalars, such
    as `rank1` in a torchreid checkpoint, are accepted as numbers. In a checkpoint, the tensors are searched
    under the keys of `WRAPPERS`, then under the only entry that contains tensors. Batch counters
    (`num_batches_tracked`) are dropped: old files do not have them, and statistics averaged with a fixed
    momentum do not use them.

    Args:
        source: a file, a folder or `hf:OWNER/NAME`; see `located`.

    Raises:
        FileNotFoundError: no such file.
        ImportError: safetensors or huggingface_hub is not installed.
        ValueError: the file is damaged; or it contains an object that is neither a tensor nor a number (the
            message names the first); or it has no tensors, or tensors under several unknown keys.
    """
    path = located(source)
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except ImportError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if not found:
            raise ValueError(f"weights: {str(path)!r} cannot be read: {_first_line(error)}") from error
        raise ValueError(
            f"weights: {str(path)!r}: expected only tensors and numbers (weights_only), got an object of"
            f" {found[1]}; load it where that class is available and save only its state dict"
        ) from error
    except Exception as error:  # damaged files and other formats raise about a dozen exception types
        raise ValueError(f"weights: {str(path)!r} cannot be read: {_first_line(error)}") from error
    inner, wrapper, entries = _unwrapped(content, path)
    tensors = {
        key: value
        for key, value in inner.items()
        if isinstance(value, Tensor) and not key.endswith("num_batches_tracked")
    }
    return WeightFile(path, tensors, wrapper, entries)


def read_tensors(source: str | Path) -> dict[str, Tensor]:
    """The tensors of `read_weights`."""
    return read_weights(source).tensors


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f"{path} needs safetensors: pip install 'vreid-ext[train]'") from error
    return load_file(path)


def _read_pickle(path: Path) -> Any:
    # The module of this function is numpy.core in NumPy 1 and numpy._core in NumPy 2.
    scalars = [(_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    types = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    with torch.serialization.safe_globals([*scalars, np.dtype, *types]), warnings.catch_warnings():
        # For a damaged file torch warns about an unknown pickle protocol before it raises; hide the warning.
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True)


def _scalar(dtype: np.dtype, data: bytes) -> int | float | bool:
    """Replacement for NumPy's unpickling function: returns the scalar as a Python number."""
    if dtype.kind not in "biuf" or len(data) != dtype.itemsize:
        raise ValueError(f"expected a NumPy scalar that is a number, got {dtype} of {len(data)} bytes")
    number: int | float | bool = np.frombuffer(data, dtype)[0].item()
    return number


def _unwrapped(content: Any, path: Path) -> tuple[Mapping[str, Any], tuple[str, ...], tuple[str, ...]]:
    """The mapping that contains the tensors, the keys that lead to it, and the keys beside them."""
    if not isinstance(content, Mapping):
        raise ValueError(f"weights: expected a state dict in {path}, got a {type(content).__name__}")
    wrapper: list[str] = []
    entries: list[str] = []
    while True:
        inner = {key: value for key, value in content.items() if any(_states(value))}
        known = [key for key in WRAPPERS if key in inner]
        if not known and any(isinstance(value, Tensor) for value in content.values()):
            return content, tuple(wrapper), tuple(entries)
        if not known and not inner:
            raise ValueError(
                f"weights: {path}: expected tensors, got entries {listed(content)} without tensors"
            )
        if not known and len(inner) > 1:
            raise ValueError(
                f"weights: {path}: expected tensors under one of {', '.join(WRAPPERS)}, got them under"
                f" {listed(inner)}"
            )
        key = known[0] if known else next(iter(inner))
        wrapper.append(key)
        entries += [str(other) for other in content if other != key]
        content = inner[key]


def _states(value: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings of names to tensors inside `value`, except optimizer states (their keys are numbers)."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        if any(isinstance(entry, Tensor) for entry in value.values()):
            yield value
        for entry in value.values():
            yield from _states(entry)


def listed(names: Any) -> str:
    """The first names, for an error."""
    names = [repr(name) for name in names]
    return ", ".join(names[:_PREVIEW]) + (", ..." if len(names) > _PREVIEW else "")


def _first_line(error: Exception) -> str:
    """First line of the message, without ANSI escape sequences."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
