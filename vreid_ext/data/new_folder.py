"""A folder of results that is there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vreid_ext._lock import one_writer


def check_new_folder(out: Path) -> None:
    """Raises FileExistsError if `out` is a file or holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"out: {out} already holds something; name a new or an empty folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `out` at the end of the block, or leaves no trace of itself.

    One process at a time makes `out` (`one_writer`).
    """
    with one_writer("out", out):
        check_new_folder(out)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-incomplete-", dir=out.parent))
        try:
            root = staging / "root"  # mkdtemp's own mode is private, this one's is the user's default
            root.mkdir()
            yield root
            os.replace(root, out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
