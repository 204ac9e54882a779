"""Answers of a search: same person, not, or too close to say, and whether the threshold still holds."""

from collections.abc import Sequence
from typing import Any

from vreid_ext.engine.drift import Drift, drift, scores
from vreid_ext.engine.search import Split
from vreid_ext.engine.threshold import Threshold, model_of_identity


def answered(
    lists: Sequence[dict[str, Any]], query: Split, gallery: Split, threshold: Threshold
) -> tuple[list[dict[str, Any]], list[Drift]]:
    """The lists of `search` with an `answer` (`Threshold.answer`) for each tracklet, and what has drifted."""
    answers = [
        {
            **entry,
            "nearest": [{**item, "answer": threshold.answer(item["distance"])} for item in entry["nearest"]],
        }
        for entry in lists
    ]
    found = drift(scores(query, gallery, lists), threshold.content["scores"], threshold.content["persons"])
    return answers, [each for each in found if each.drifted]


def check_threshold(threshold: Threshold, *splits: Split) -> None:
    """Check that a threshold is for the features of splits that `read_split` has read.

    Raises:
        ValueError: it is for features of another model, metric or dimension.
    """
    for split in splits:
        assert split.manifest is not None
        model = model_of_identity(split.manifest["identity"])
        threshold.check(model, split.metric, split.features.shape[1])  # type: ignore[union-attr]
