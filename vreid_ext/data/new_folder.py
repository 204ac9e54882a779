"""A folder of results that is there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_new_folder(out: Path) -> None:
    """Raises FileExistsError if `out` is a file or holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"out: {out} already holds something; name a new or an empty folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `out` at the end of the block, or leaves no trace of itself."""
    check_new_folder(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-incomplete-", dir=out.parent))
    try:
        root = staging / "root"  # mkdtemp's own mode is private, this one's is the user's default
        root.mkdir()
        yield root
        os.replace(root, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
