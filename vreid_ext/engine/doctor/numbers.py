"""Checks of the numbers in the features, over all rows."""

import math
from typing import Any

from vreid_ext.engine.doctor.finding import Finding, Group
from vreid_ext.engine.doctor.subject import Subject

_SHOWN = 10
_LEVEL = 0.001  # probability that a dimension in use is called dead
_RARE = 0.05  # share of the tracklets for which a dimension in use is not at its resting value
_MANY = 0.1  # dead dimensions up to this share of all are no warning


def finite(subject: Subject) -> Finding:
    """Rows that are NaN, infinite or zero. They have no distance; all others are exact."""
    bad, zero = subject.scan.not_finite, subject.scan.zero
    evidence: dict[str, Any] = {"rows": len(subject.features), "not_finite": len(bad), "zero": len(zero)}
    evidence |= {"first": [subject.tracklets[number].name for number in [*bad, *zero][:_SHOWN]]}
    if not bad and not zero:
        return Finding("finite", "ok", f"all {len(subject.features)} rows are finite and not zero", evidence)
    return Finding(
        "finite",
        "error",
        f"{len(bad)} rows with NaN or infinity and {len(zero)} rows of zeros among {len(subject.features)}",
        evidence,
        "Look at the pictures of these tracklets, and extract the features again in float32.",
        tuple(
            Group(name, tuple(rows[:_SHOWN]))
            for name, rows in (("NaN or infinity", bad), ("zero", zero))
            if rows
        ),
    )


def constant(subject: Subject) -> Finding:
    """Dimensions that have the same value in all rows.

    With N rows, a dimension that leaves its resting value for a share q of the tracklets is constant by
    chance with probability (1 - q)^N. A set is large enough for the check if that is below 0.001 / D for
    q = 0.05, so a dimension in use is reported in less than one of 1,000 sets.
    """
    scan, width = subject.scan, subject.features.shape[1]
    usable = int(scan.usable.sum())
    needed = math.ceil(math.log(_LEVEL / width) / math.log(1 - _RARE))
    dead = (scan.least == scan.most).nonzero()[:, 0].tolist()
    share = len(dead) / width
    evidence: dict[str, Any] = {
        "dimensions": width,
        "constant": len(dead),
        "share": share,
        "first": dead[:_SHOWN],
    }
    evidence |= {"rows": usable, "rows_needed": needed}
    summary = f"{len(dead)} of {width} dimensions have the same value in all {usable} usable rows"
    if usable < needed and 0 < len(dead) < width:
        return Finding("constant", "skipped", f"{summary}; {needed} rows are needed to tell", evidence)
    if share <= _MANY:
        return Finding("constant", "ok", summary, evidence)
    return Finding(
        "constant",
        "error" if len(dead) == width else "warning",
        summary,
        evidence,
        "Train with a lower learning rate or another initialization, so that fewer units die, or remove "
        "these dimensions.",
    )
