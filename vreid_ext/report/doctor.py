"""The page of `vreid doctor`: every check with its numbers, and pictures of what it found."""

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from vreid_ext._files import whole_file
from vreid_ext._lock import one_writer
from vreid_ext.engine.build import black_box_of
from vreid_ext.engine.doctor import CHECKS, Finding, Subject
from vreid_ext.engine.environment import environment
from vreid_ext.report.strips import strip_frames, strip_name, write_strips
from vreid_ext.report.templates import template

HEADINGS = {"error": "error", "warning": "warning", "ok": "nothing found", "skipped": "not checked"}


def write_doctor_page(
    page: Path,
    subject: Subject,
    findings: Sequence[Finding],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the findings as an HTML page, with strips of frames in the folder NAME_files next to it.

    An existing page is replaced only when the new one is complete. Without pictures
    (`Subject.records`), the page lists the names of the tracklets.

    Args:
        page: the file, NAME.html.
        progress: called with (strips done, total number of strips).
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    with one_writer("out", page):
        files = page.with_name(f"{page.stem}_files")
        numbers = sorted(set(chain(*(group.tracklets for each in findings for group in each.groups))))
        if subject.records and numbers:
            box = None if subject.recipe is None else black_box_of(subject.recipe.dataset)
            write_strips([subject.records[number] for number in numbers], files, progress, black_box=box)
        content = template("doctor.html").render(
            title="Is it working?",
            subject=subject,
            findings=findings,
            found=[each for each in findings if each.found],
            faults={check.name: check.fault for check in CHECKS},
            headings=HEADINGS,
            tracklets={number: _shown(subject, number) for number in numbers},
            folder=files.name,
            environment=environment(),
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        )
        with whole_file(page) as temporary:
            temporary.write_text(content, encoding="utf-8", errors="replace")  # names may not be valid UTF-8


def _shown(subject: Subject, number: int) -> dict[str, Any]:
    shown: dict[str, Any] = subject.tracklets[number]._asdict()
    side = "test" if number < len(subject.features) else "training"
    shown |= {"side": side, "strip": None, "frames": 0}
    if subject.records:
        record = subject.records[number]
        shown |= {"strip": strip_name(record), "frames": strip_frames(record)}
    return shown
