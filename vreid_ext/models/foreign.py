"""Tensors by name from weight files that other packages wrote."""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Under which training scripts keep the weights in a checkpoint; the first of these that is there is taken.
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
_PREVIEW = 3  # names that an error lists


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a `.pth` / `.pt` file that `torch.save` wrote.

    A `.pth` file is read with `weights_only`, so it cannot run code; numbers that are NumPy scalars, such as
    the `rank1` of a torchreid checkpoint, are read too. In a checkpoint the tensors are those under one of
    `WRAPPERS`, else under the only entry that holds any. Batch counters (`num_batches_tracked`) are left
    out: old files lack them, and momentum-averaged statistics do not need them.

    Raises:
        FileNotFoundError: no such file.
        ImportError: safetensors is not installed.
        ValueError: the file is damaged, holds objects other than tensors and numbers (the first is named), or
            no tensors, or tensors under several entries of unknown names.
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
            f"weights: {str(path)!r}: expected tensors and numbers alone (weights_only), got an object of"
            f" {found[1]}; save the state dict alone where that class is known"
        ) from error
    except Exception as error:  # a dozen kinds for a file that is damaged or no such file
        raise ValueError(f"weights: {str(path)!r} cannot be read: {_first_line(error)}") from error
    return {
        key: value
        for key, value in _unwrapped(content, path).items()
        if isinstance(value, Tensor) and not key.endswith("num_batches_tracked")
    }


def matched(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of `given` by the names of `wanted`, each of its shape; further tensors are not used.

    By name, behind a prefix that all names share ("module.", "model.backbone."). Where the names are foreign,
    by order, if all shapes and the last parts of all names agree ("bn1.weight" and "block.7.weight"), with a
    warning that says so.

    Raises:
        ValueError: neither fits; the message names the first tensor that does not. Or several prefixes fit.
    """
    first = next(iter(wanted))
    prefixes = [key.removesuffix(first) for key in given if key == first or key.endswith(f".{first}")]
    known = {prefix: sum(prefix + key in given for key in wanted) for prefix in prefixes}
    whole = [prefix for prefix, count in known.items() if count == len(wanted)]
    if "" in whole:
        whole = [""]
    if len(whole) > 1:
        raise ValueError(f"weights: {source}: expected one network, got {len(whole)}, under {_names(whole)}")
    if whole:
        chosen = {key: given[whole[0] + key] for key in wanted}
        for key, value in chosen.items():
            if value.shape != wanted[key].shape:
                raise ValueError(
                    f"weights: {source}: {key!r}: expected shape {tuple(wanted[key].shape)}, got "
                    f"{tuple(value.shape)}"
                )
        return chosen
    prefix = max(known, key=lambda prefix: known[prefix], default="")
    if known.get(prefix, 0) > len(wanted) // 2:  # the names fit, but the file lacks some of them
        missing = [key for key in wanted if prefix + key not in given]
        raise ValueError(
            f"weights: {source}: expected {len(wanted)} tensors by name, got {known[prefix]}; the first that"
            f" it lacks is {prefix + missing[0]!r}"
        )
    return _by_order(wanted, given, source)


def _by_order(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    if len(given) < len(wanted):
        raise ValueError(
            f"weights: {source}: expected at least {len(wanted)} tensors, got {len(given)}; their names "
            f"begin with {_names(given)}"
        )
    pairs = list(zip(wanted, given, strict=False))
    for ours, theirs in pairs:
        if given[theirs].shape != wanted[ours].shape:
            raise ValueError(
                f"weights: {source} fits neither by name nor by order: expected {ours!r} of shape "
                f"{tuple(wanted[ours].shape)}, got {theirs!r} of shape {tuple(given[theirs].shape)}"
            )
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise ValueError(
                f"weights: {source} fits neither by name nor by order: expected {ours!r}, got {theirs!r}, "
                "and the last parts of their names differ"
            )
    (ours, theirs), (our_last, their_last) = pairs[0], pairs[-1]
    warnings.warn(
        f"weights: {source} has other names; {len(pairs)} tensors are matched by order, from {theirs!r} as"
        f" {ours!r} to {their_last!r} as {our_last!r}",
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
    # NumPy 1 and 2 name the function that makes a scalar differently.
    scalars = [(_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    types = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    with torch.serialization.safe_globals([*scalars, np.dtype, *types]), warnings.catch_warnings():
        # Before the error about a damaged file torch asks for a report of its pickle protocol.
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True)


def _scalar(dtype: np.dtype, data: bytes) -> int | float | bool:
    """A NumPy scalar of a pickle as a number."""
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
            raise ValueError(f"weights: {path}: expected tensors, got entries {_names(content)} without any")


def _states(value: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings of names to tensors in `value`; those of an optimizer have numbers as keys."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        if any(isinstance(entry, Tensor) for entry in value.values()):
            yield value
        for entry in value.values():
            yield from _states(entry)


def _names(names: Any) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names[:_PREVIEW]) + (", ..." if len(names) > _PREVIEW else "")


def _first_line(error: Exception) -> str:
    """Of an error's text, without the control sequences of a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
