"""Named tensors from weight files written by other packages."""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
)
_PREVIEW = 3  # number of names listed in an error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file or of a `.pth` / `.pt` file written by `torch.save`.

    A `.pth` file is loaded with `weights_only=True`, so it cannot execute code. NumPy scalars, such as
    `rank1` in a torchreid checkpoint, are accepted as numbers. In a checkpoint, the tensors are searched
    under the keys of `WRAPPERS`, then under the only entry that contains tensors. Batch counters
    (`num_batches_tracked`) are dropped: old files do not have them, and statistics averaged with a fixed
    momentum do not use them.

    Raises:
        FileNotFoundError: no such file.
        ImportError: safetensors is not installed.
        ValueError: the file is damaged; or it contains an object that is neither a tensor nor a number (the
            message names the first); or it has no tensors, or tensors under several unknown keys.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"weights: expected 'none', 'imagenet' or an existing file, got {str(path)!r}"
        )
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
    return {
        key: value
        for key, value in _unwrapped(content, path).items()
        if isinstance(value, Tensor) and not key.endswith("num_batches_tracked")
    }


def matched(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Match the tensors of `given` to the names and shapes of `expected`. Additional tensors are ignored.

    Tensors are matched by name after a common prefix ("module.", "model.backbone.") is removed. If the names
    differ, they are matched by order, with a warning, provided that all shapes and the last components of all
    names agree ("bn1.weight" and "block.7.weight").

    Args:
        source: name of the weights in error messages, for example a path.

    Raises:
        ValueError: the tensors match neither by name nor by order (the message names the first mismatch), or
            several prefixes match.
    """
    first = next(iter(expected))
    prefixes = [key.removesuffix(first) for key in given if key == first or key.endswith(f".{first}")]
    known = {prefix: sum(prefix + key in given for key in expected) for prefix in prefixes}
    whole = [prefix for prefix, count in known.items() if count == len(expected)]
    if "" in whole:
        whole = [""]
    if len(whole) > 1:
        raise ValueError(f"weights: {source}: expected one network, got {len(whole)}, under {_names(whole)}")
    if whole:
        chosen = {key: given[whole[0] + key] for key in expected}
        for key, value in chosen.items():
            if value.shape != expected[key].shape:
                raise ValueError(
                    f"weights: {source}: {key!r}: expected shape {tuple(expected[key].shape)}, got "
                    f"{tuple(value.shape)}"
                )
        return chosen
    prefix = max(known, key=lambda prefix: known[prefix], default="")
    if known.get(prefix, 0) > len(expected) // 2:  # the names match, but some are missing in the file
        missing = [key for key in expected if prefix + key not in given]
        raise ValueError(
            f"weights: {source}: expected {len(expected)} tensors by name, got {known[prefix]}; the first"
            f" missing one is {prefix + missing[0]!r}"
        )
    return _by_order(expected, given, source)


def _by_order(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    if len(given) < len(expected):
        raise ValueError(
            f"weights: {source}: expected at least {len(expected)} tensors, got {len(given)}; their names "
            f"begin with {_names(given)}"
        )
    pairs = list(zip(expected, given, strict=False))
    for ours, theirs in pairs:
        if given[theirs].shape != expected[ours].shape:
            raise ValueError(
                f"weights: {source} fits neither by name nor by order: expected {ours!r} of shape "
                f"{tuple(expected[ours].shape)}, got {theirs!r} of shape {tuple(given[theirs].shape)}"
            )
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise ValueError(
                f"weights: {source} fits neither by name nor by order: expected {ours!r}, got {theirs!r}; "
                "the last components of the names differ"
            )
    (ours, theirs), (our_last, their_last) = pairs[0], pairs[-1]
    warnings.warn(
        f"weights: {source} has different tensor names; {len(pairs)} tensors are matched by order, "
        f"from {theirs!r} as {ours!r} to {their_last!r} as {our_last!r}",
        stacklevel=4,
    )
    return {ours: given[theirs] for ours, theirs in pairs}


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


def _unwrapped(content: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"weights: expected a state dict in {path}, got a {type(content).__name__}")
    while True:
        inner = {key: value for key, value in content.items() if any(_states(value))}
        known = [key for key in WRAPPERS if key in inner]
        if known:
            content = inner[known[0]]
        elif any(isinstance(value, Tensor) for value in content.values()):
            return content
        elif len(inner) == 1:
            (content,) = inner.values()
        elif inner:
            raise ValueError(
                f"weights: {path}: expected tensors under one of {', '.join(WRAPPERS)}, got them under"
                f" {_names(inner)}"
            )
        else:
            raise ValueError(
                f"weights: {path}: expected tensors, got entries {_names(content)} without tensors"
            )


def _states(value: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings of names to tensors inside `value`, except optimizer states (their keys are numbers)."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        if any(isinstance(entry, Tensor) for entry in value.values()):
            yield value
        for entry in value.values():
            yield from _states(entry)


def _names(names: Any) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names[:_PREVIEW]) + (", ..." if len(names) > _PREVIEW else "")


def _first_line(error: Exception) -> str:
    """First line of the message, without ANSI escape sequences."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
