"""Matches the tensors of a file to those that a network expects."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from vreid_ext.weights.read import listed


class Fit(NamedTuple):
    """How far the tensors of a file fit a network, by name after a prefix.

    Attributes:
        prefix: the prefix with the most tensors that fit.
        fitting: names that the network expects and the file has with the same shape.
        misshapen: names that the file has with another shape.
        missing: names that the file does not have.
        unused: names of the file, with the prefix, that the network does not expect.
    """

    prefix: str
    fitting: list[str]
    misshapen: list[str]
    missing: list[str]
    unused: list[str]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network is in the file."""
        return not self.misshapen and not self.missing

    def __str__(self) -> str:
        total = len(self.fitting) + len(self.misshapen) + len(self.missing)
        return (
            f"{len(self.fitting)} of {total} tensors fit by name and shape, {len(self.misshapen)} have "
            f"another shape, {len(self.missing)} are missing"
        )


def expected_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that a file must have, without the batch counters."""
    state: dict[str, Tensor] = network.state_dict()
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def best_fit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Fit:
    """Compare names and shapes, with the prefix of `given` under which most tensors fit."""
    fits = [_fit(expected, given, prefix) for prefix in _prefixes(expected, given)]
    return max(fits, key=lambda fit: len(fit.fitting))


def matched(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Match the tensors of `given` to the names and shapes of `expected`. Additional tensors are ignored.

    Tensors are matched by name after a common prefix ("module.", "model.backbone.") is removed. If the names
    differ, they are matched by order, with a warning, provided that all shapes and the last components of all
    names agree ("bn1.weight" and "block.7.weight").

    Args:
        source: name of the weights in error messages, for example a path.

    Raises:
        ValueError: the tensors match neither by name nor by order (the message names the first mismatch and
            counts the tensors that fit), or several prefixes match.
    """
    fits = [_fit(expected, given, prefix) for prefix in _prefixes(expected, given)]
    whole = [fit.prefix for fit in fits if not fit.missing]
    if "" in whole:
        whole = [""]
    if len(whole) > 1:
        raise ValueError(f"weights: {source}: expected one network, got {len(whole)}, under {listed(whole)}")
    fit = max(fits, key=lambda fit: len(fit.fitting) + len(fit.misshapen))
    if whole:
        (fit,) = (each for each in fits if each.prefix == whole[0])
        if fit.misshapen:
            name = fit.misshapen[0]
            raise ValueError(
                f"weights: {source}: {name!r}: expected shape {tuple(expected[name].shape)}, got "
                f"{tuple(given[fit.prefix + name].shape)}; {fit}"
            )
        return {key: given[fit.prefix + key] for key in expected}
    if len(fit.missing) < len(expected) / 2:  # the names match, but some are missing in the file
        raise ValueError(
            f"weights: {source}: expected {len(expected)} tensors by name, got "
            f"{len(expected) - len(fit.missing)}; the first missing one is {fit.prefix + fit.missing[0]!r}; "
            f"{fit}"
        )
    return _by_order(expected, given, source, fit)


def _prefixes(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """The prefixes of `given` before the first or the last name of `expected`; "" if there are none.

    Both ends are tried, because a file of another architecture may lack one of them.
    """
    names = list(expected)
    ends = dict.fromkeys((names[0], names[-1]))
    found = [key.removesuffix(end) for end in ends for key in given if key == end or key.endswith(f".{end}")]
    return list(dict.fromkeys(found)) or [""]


def _fit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], prefix: str) -> Fit:
    present = {
        key: given[prefix + key].shape == value.shape
        for key, value in expected.items()
        if prefix + key in given
    }
    return Fit(
        prefix,
        [key for key, same in present.items() if same],
        [key for key, same in present.items() if not same],
        [key for key in expected if key not in present],
        [key for key in given if key.removeprefix(prefix) not in present or not key.startswith(prefix)],
    )


def _by_order(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, fit: Fit
) -> dict[str, Tensor]:
    if len(given) < len(expected):
        raise ValueError(
            f"weights: {source}: expected at least {len(expected)} tensors, got {len(given)}; their names "
            f"begin with {listed(given)}; {fit}"
        )
    pairs = list(zip(expected, given, strict=False))
    for ours, theirs in pairs:
        if given[theirs].shape != expected[ours].shape:
            raise ValueError(
                f"weights: {source} fits neither by name nor by order: expected {ours!r} of shape "
                f"{tuple(expected[ours].shape)}, got {theirs!r} of shape {tuple(given[theirs].shape)}; {fit}"
            )
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise ValueError(
                f"weights: {source} fits neither by name nor by order: expected {ours!r}, got {theirs!r}; "
                f"the last components of the names differ; {fit}"
            )
    (ours, theirs), (our_last, their_last) = pairs[0], pairs[-1]
    warnings.warn(
        f"weights: {source} has different tensor names; {len(pairs)} tensors are matched by order, "
        f"from {theirs!r} as {ours!r} to {their_last!r} as {our_last!r}",
        stacklevel=4,
    )
    return {ours: given[theirs] for ours, theirs in pairs}
