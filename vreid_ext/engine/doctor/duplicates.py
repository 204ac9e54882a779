"""Checks for the same feature or the same picture under two persons."""

from typing import Any

from vreid_ext.engine.doctor.finding import Finding, Group
from vreid_ext.engine.doctor.subject import Subject

_SHOWN = 12
_REMEDY = "Keep one of the copies, or give both tracklets the same person."


def duplicates(subject: Subject) -> Finding:
    """Features of two persons that are equal up to rounding, |a - b| <= 2^-13 |a|."""
    pairs = subject.copies
    evidence: dict[str, Any] = {"pairs": len(pairs), "tracklets": len(subject.sample.rows)}
    evidence |= {"first": [[subject.tracklets[n].name for n in pair] for pair in pairs[:_SHOWN]]}
    if not pairs:
        return Finding(
            "duplicates", "ok", f"no equal features of two persons among {len(subject.sample.rows)}", evidence
        )
    return Finding(
        "duplicates",
        "error",
        f"{len(pairs)} pairs of equal features under two persons",
        evidence,
        _REMEDY,
        tuple(_group(subject, pair) for pair in pairs[:_SHOWN]),
    )


def pictures(subject: Subject) -> Finding:
    """Image files with the same bytes under two persons, among all frames of training and test."""
    found = [
        owners
        for owners in subject.same_files
        if len({subject.tracklets[n].pid for n, _ in owners if subject.known(n)}) > 1
    ]
    frames = sum(map(len, subject.records))
    pairs = list(dict.fromkeys(tuple(dict.fromkeys(n for n, _ in owners)) for owners in found))
    evidence: dict[str, Any] = {
        "files": frames,
        "pictures": len(found),
        "tracklets": len({n for pair in pairs for n in pair}),
    }
    evidence |= {"first": [[subject.records[n].paths[f] for n, f in owners] for owners in found[:_SHOWN]]}
    if not found:
        return Finding("pictures", "ok", f"no picture of two persons among {frames} files", evidence)
    return Finding(
        "pictures",
        "error",
        f"{len(found)} pictures under two persons, in {evidence['tracklets']} tracklets",
        evidence,
        _REMEDY,
        tuple(_group(subject, pair) for pair in pairs[:_SHOWN]),
    )


def _group(subject: Subject, rows: tuple[int, ...]) -> Group:
    persons = dict.fromkeys(str(subject.tracklets[number].pid) for number in rows)
    return Group(f"persons {' and '.join(persons)}", rows)
