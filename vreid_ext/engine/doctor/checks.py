"""The table of checks, and the function that runs them."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from vreid_ext.engine.doctor.camera import camera
from vreid_ext.engine.doctor.collapse import collapsed, informative
from vreid_ext.engine.doctor.colors import colors
from vreid_ext.engine.doctor.duplicates import duplicates, pictures
from vreid_ext.engine.doctor.finding import Finding, Skipped
from vreid_ext.engine.doctor.labels import merged, split
from vreid_ext.engine.doctor.leakage import leaked_people, leaked_pictures
from vreid_ext.engine.doctor.numbers import constant, finite
from vreid_ext.engine.doctor.subject import Subject


class Check(NamedTuple):
    """A check: its name, its function, and the fault that it looks for."""

    name: str
    function: Callable[[Subject], Finding]
    fault: str


CHECKS = (
    Check("finite", finite, "features that are NaN, infinite or zero"),
    Check("constant", constant, "dimensions that are constant"),
    Check("collapsed", collapsed, "features that are nearly the same for all persons"),
    Check("informative", informative, "features that do not depend on the person"),
    Check("duplicates", duplicates, "the same feature under two persons"),
    Check("pictures", pictures, "the same picture under two persons"),
    Check("merged", merged, "two persons under one label"),
    Check("split", split, "one person under two labels"),
    Check("camera", camera, "features that depend much on the camera"),
    Check("colors", colors, "colors in another order or scale than the model expects"),
    Check("leaked_people", leaked_people, "persons in training and test"),
    Check("leaked_pictures", leaked_pictures, "pictures in training and test"),
)


def diagnose(subject: Subject, checks: Sequence[str] | None = None) -> list[Finding]:
    """Run the checks, in the order of `CHECKS`.

    Args:
        subject: what to examine (`of_run`, `of_features`, `of_arrays`).
        checks: names of the checks to run; None: all.

    Returns:
        One finding for each check; `Finding.found` says whether there is something to repair.

    Raises:
        ValueError: an unknown name.
    """
    check_names(checks)
    findings = []
    for check in CHECKS:
        if checks is not None and check.name not in checks:
            continue
        try:
            findings.append(check.function(subject))
        except Skipped as reason:
            findings.append(Finding(check.name, "skipped", str(reason), {}))
    return findings


def check_names(checks: Sequence[str] | None) -> None:
    """Check that all names are in `CHECKS`.

    Raises:
        ValueError: an unknown name.
    """
    names = [check.name for check in CHECKS]
    for name in checks or ():
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"checks: expected one of {', '.join(names)}, got {name!r}{hint}")
