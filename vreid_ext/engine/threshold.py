"""A saved threshold: which distances mean the same person, for one model.

The file threshold.json:

    format          1
    threshold       value, low, high: distances; the bounds of the interval are the band of `answer`
    asked           the false-match rate that was asked for
    fmr, fnmr       rates at the threshold, each as value, low, high
    confidence      of the intervals
    genuine, impostors, persons     counts of the calibration
    metric, dimensions              of the features
    model           what determines the features: weights (SHA-256), model, input size, sampling, frames
    features        SHA-256 of the manifest of the features
    dataset         name of the data set
    protocol        pairs that were left out
    scores          `drift.stored_scores` of the calibration
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vreid_ext._files import write_json
from vreid_ext._lock import one_writer

FORMAT = 1
NAME = "threshold.json"
SAME, CLOSE, NOT = "same", "too close to say", "not"
_RATES = ("threshold", "fmr", "fnmr")


class Threshold(NamedTuple):
    """A threshold that was read from `path`.

    Attributes:
        path: the file.
        content: its content.
    """

    path: Path
    content: dict[str, Any]

    def __repr__(self) -> str:
        return f"Threshold({str(self.path)!r}, {self.value:.4f})"

    @property
    def value(self) -> float:
        return float(self.content["threshold"]["value"])

    @property
    def band(self) -> tuple[float, float]:
        """The bounds of the threshold's interval."""
        interval = self.content["threshold"]
        return float(interval["low"]), float(interval["high"])

    def answer(self, distance: float) -> str:
        """Whether two tracklets at this distance show the same person.

        "same" up to the lower bound of the threshold's interval, "not" above its upper bound, "too close to
        say" in between.
        """
        low, high = self.band
        return SAME if distance <= low else NOT if distance > high else CLOSE

    def check(self, model: Mapping[str, Any], metric: str, dimensions: int) -> None:
        """Check that the threshold is for these features.

        Args:
            model: `model_of_identity` of the features.

        Raises:
            ValueError: they are of another metric, dimension or model.
        """
        facts = {"dimensions": dimensions, "metric": metric, **model}
        stored = {"dimensions": self.content["dimensions"], "metric": self.content["metric"]}
        stored |= self.content["model"]
        if different := first_difference(stored, facts):
            key, mine, theirs = different
            raise ValueError(
                f"threshold: expected one for features of {key} {theirs}, got one for {mine} in "
                f"{str(self.path)!r}; run `vreid calibrate` again"
            )


def model_of_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `engine.features.identity_of` that do not depend on the data set."""
    data = ("dataset.", "eval.corrupt", "seed")
    return {key: value for key, value in identity.items() if not key.startswith(data)}


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first key whose JSON values differ, with both values as short text; None if there is none."""
    for key in dict.fromkeys([*other, *one]):
        mine, theirs = (json.loads(json.dumps(each.get(key))) for each in (one, other))
        if mine != theirs:
            return key, _short(mine), _short(theirs)
    return None


def write_threshold(path: Path, content: Mapping[str, Any]) -> None:
    """Write a threshold; an existing file is replaced only when the new one is complete."""
    with one_writer("out", path):
        write_json(path, {"format": FORMAT, **content})


def find_threshold(*folders: Path) -> Threshold | None:
    """The threshold of the first folder that has one."""
    for folder in folders:
        if (folder / NAME).is_file():
            return read_threshold(folder)
    return None


def read_threshold(path: Path) -> Threshold:
    """Read a threshold from its file, or from the folder that contains threshold.json.

    Raises:
        ValueError: there is none, it is damaged, or it has another format.
    """
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"threshold: expected a file of `vreid calibrate`, got {str(file)!r}, which is none")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"threshold: expected JSON in {str(file)!r}, got: {error}") from error
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise ValueError(f"threshold: expected format {FORMAT} in {str(file)!r}, got {content['format']!r}")
    if not _is_valid(content):
        raise ValueError(
            f"threshold: expected a file of `vreid calibrate`, got {str(file)!r} without its entries"
        )
    return Threshold(file, content)


def _is_valid(content: Any) -> bool:
    try:
        intervals = [[content[name][bound] for bound in ("low", "value", "high")] for name in _RATES]
        scores = content["scores"]
        return (
            all(_numbers(each) and each[0] <= each[2] for each in intervals)
            and all(_numbers(scores[kind]) for kind in ("best", "random"))
            and type(content["dimensions"]) is type(content["persons"]) is int
            and content["persons"] > 0
            and isinstance(content["model"], dict)
            and isinstance(content["metric"], str)
            and _numbers([content["asked"]])
        )
    except (KeyError, TypeError):
        return False


def _numbers(values: Sequence[Any]) -> bool:
    return all(type(value) in (int, float) and value == value for value in values)  # not NaN


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
