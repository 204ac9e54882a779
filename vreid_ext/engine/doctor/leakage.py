"""Checks for persons and pictures that are in the training and in the test."""

from typing import Any

from vreid_ext.engine.doctor.finding import Finding, Group, Skipped
from vreid_ext.engine.doctor.subject import Subject

_SHOWN = 12


def leaked_people(subject: Subject) -> Finding:
    """Persons that are in the training and in query or gallery."""
    first = len(subject.features)
    if len(subject.tracklets) == first:
        raise Skipped("needs the training tracklets: give the run instead of its features")
    test = {each.pid for number, each in enumerate(subject.test) if subject.known(number)}
    train = {each.pid for number, each in enumerate(subject.tracklets) if number >= first}
    both = sorted((train & test) - {-1, subject.distractor})
    evidence: dict[str, Any] = {
        "train": len(train),
        "test": len(test),
        "both": len(both),
        "first": both[:_SHOWN],
    }
    if not both:
        return Finding(
            "leaked_people", "ok", f"none of {len(test)} test persons is in the training", evidence
        )
    groups = []
    for pid in both[:_SHOWN]:
        rows = [number for number, each in enumerate(subject.tracklets) if each.pid == pid]
        sides = [next(n for n in rows if n < first), next(n for n in rows if n >= first)]
        groups.append(Group(f"person {pid}: test, training", tuple(sides)))
    return Finding(
        "leaked_people",
        "error",
        f"{len(both)} of {len(test)} test persons are in the training",
        evidence,
        "Split by person, so that nobody is on both sides; the figures of this run are too good.",
        tuple(groups),
    )


def leaked_pictures(subject: Subject) -> Finding:
    """Image files with the same bytes in the training and in query or gallery."""
    first = len(subject.features)
    if len(subject.tracklets) == first:
        raise Skipped("needs the training tracklets: give the run instead of its features")
    found = [owners for owners in subject.same_files if len({n >= first for n, _ in owners}) == 2]
    pairs = list(dict.fromkeys(tuple(dict.fromkeys(n for n, _ in owners)) for owners in found))
    evidence: dict[str, Any] = {"files": sum(map(len, subject.records)), "pictures": len(found)}
    evidence |= {"first": [[subject.records[n].paths[f] for n, f in owners] for owners in found[:_SHOWN]]}
    if not found:
        return Finding(
            "leaked_pictures", "ok", f"no picture of {evidence['files']} is on both sides", evidence
        )
    return Finding(
        "leaked_pictures",
        "error",
        f"{len(found)} pictures are in the training and in the test",
        evidence,
        "Remove these tracklets from the training; the figures of this run are too good.",
        tuple(Group("training and test", pair) for pair in pairs[:_SHOWN]),
    )
