"""Atomic writes of files and folders: an interrupted write or a full disk leaves no incomplete output."""

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
    """fsync a file, or the entries of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path, *, racing: bool = False) -> Iterator[Path]:
    """Yield a temporary path, `.NAME.partial`; at the end of the block that file replaces `path`.

    After an error the temporary file is removed and `path` is unchanged.

    Args:
        racing: several processes may write the same content at once, so the temporary name contains the
            process id.
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
    """Raise FileExistsError if `out` is a file or a folder that is not empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"out: expected a new or empty folder, got {out}, which is not empty")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder. It becomes `out` at the end of the block and is removed after an error.

    Only one process at a time may create `out` (`one_writer`).
    """
    with one_writer("out", out):
        check_new_folder(out)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-incomplete-", dir=out.parent))
        try:
            root = staging / "root"  # mkdtemp creates with mode 0700; mkdir uses the user's default mode
            root.mkdir()
            yield root
            os.replace(root, out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
