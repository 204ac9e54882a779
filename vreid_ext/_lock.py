"""One writer at a time: a lock on a folder or a file. The OS releases it when the process ends."""

import functools
import inspect
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

# The locks of this process: lock file -> (file descriptor, id of the thread that holds the lock).
_held: dict[Path, tuple[int, int]] = {}


class InUseError(RuntimeError):
    """Another process or thread is writing to the same path."""


@contextmanager
def one_writer(name: str, target: str | Path, *, inside: bool = False) -> Iterator[None]:
    """Hold the lock of a folder or a file during the block. The lock is reentrant within a thread.

    The lock file is `.NAME.lock` beside the target. It is removed at the end, together with folders that
    were created for it and are still empty. The lock file of a killed process remains, but
    the lock is released. Warns if the file system does not support locks.

    Args:
        name: argument name for the error message.
        target: file or folder that will be written.
        inside: the target is a folder, and the lock file is `.lock` in it.

    Raises:
        InUseError: another process or thread holds the lock; the message contains its process id and host.
    """
    target = Path(target).absolute()
    path = target / ".lock" if inside else target.with_name(f".{target.name}.lock")
    thread = threading.get_ident()
    if path in _held and _held[path][1] == thread:
        yield
        return
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = _acquire(name, target, path)
        if file is None:
            yield
            return
        _held[path] = file, thread
        try:
            yield
        finally:
            if _held.pop(path, None):  # None in a forked child, which has released all locks
                path.unlink(missing_ok=True)
                os.close(file)
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def alone(argument: str) -> Callable[[Function], Function]:
    """Decorator that runs each call within `one_writer` of the path given as this argument."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def alone(*args: Any, **options: Any) -> Any:
            with one_writer(argument, signature.bind(*args, **options).arguments[argument]):
                return function(*args, **options)

        return alone  # type: ignore[return-value]

    return decorate


def _acquire(name: str, target: Path, path: Path) -> int | None:
    """Lock the lock file and return its descriptor, or None if the file system does not support locks."""
    import fcntl

    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file before it was locked here. A lock on a removed
            # file excludes no other process, so try again with a new one.
            if os.path.samestat(os.fstat(file), path.stat()):
                break
            os.close(file)
        except BlockingIOError as error:
            holder = os.read(file, 1000).decode(errors="replace") or "another process"
            os.close(file)
            raise InUseError(
                f"{name}: {str(target)!r} is being written by {holder}; wait for it, or choose another path"
            ) from error
        except FileNotFoundError:
            os.close(file)
        except OSError as error:
            os.close(file)
            warnings.warn(
                f"{name}: {str(target)!r} cannot be locked ({error.strerror}); make sure that no other "
                "process writes there",
                stacklevel=4,
            )
            return None
    os.ftruncate(file, 0)
    with suppress(OSError):  # e.g. a full disk; the text only serves the error message
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return file


def _let_go() -> None:
    """Close inherited locks: a child (a DataLoader worker) would keep them after its parent is killed."""
    for file, _ in _held.values():
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
