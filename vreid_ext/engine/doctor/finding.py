"""The result of a check."""

from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning", "ok", "skipped"]


class Group(NamedTuple):
    """Tracklets that belong together in the evidence, for the pictures of the report.

    Attributes:
        title: what they have in common.
        tracklets: numbers of the tracklets in `Subject.tracklets`.
    """

    title: str
    tracklets: tuple[int, ...]


class Finding(NamedTuple):
    """The result of a check.

    Attributes:
        check: name of the check in `CHECKS`.
        severity: "error": results are wrong; "warning": results are probably distorted; "ok": nothing found;
            "skipped": the check does not apply, or has too little data to say something.
        summary: the result in one line, with its numbers.
        evidence: the numbers, as they are written to JSON.
        remedy: what to do, in one sentence; empty unless something is found.
        groups: tracklets to look at.
    """

    check: str
    severity: Severity
    summary: str
    evidence: dict[str, Any]
    remedy: str = ""
    groups: tuple[Group, ...] = ()

    @property
    def found(self) -> bool:
        """Whether there is something to repair."""
        return self.severity in ("error", "warning")


class Skipped(Exception):  # noqa: N818 -- not an error
    """Raised by a check that does not apply. The message is the reason."""
