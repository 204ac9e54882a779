"""Files and folders that are there whole or not at all, whatever kills the process or fills the disk."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vreid_ext._lock import one_writer


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path, *, racing: bool = False) -> Iterator[Path]:
    """A path to write to, `.NAME.partial`; at the end of the block that file replaces `path`.

    After an error it is removed, and `path` is as it was.

    Args:
        racing: several processes may write the same content at once, so each has a temporary name of its own.
    """
    owner = f".{os.getpid()}" if racing else ""
    temporary = path.with_name(f".{path.name}{owner}.partial")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")


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
