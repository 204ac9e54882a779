"""One writer at a time: a lock on a folder or a file that ends with its process, however that ends."""

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

# The locks of this process: the descriptor of the file, and the thread that holds it.
_held: dict[Path, tuple[int, int]] = {}


class InUseError(RuntimeError):
    """Another process writes there."""


@contextmanager
def one_writer(name: str, target: str | Path, *, inside: bool = False) -> Iterator[None]:
    """Hold the lock of a folder or a file for the length of the block; a thread may enter it again.

    The lock file is `.NAME.lock` beside the target. It is removed at the end, as are folders that were made
    for it and have stayed empty. A process that is killed leaves the file, but not the lock. On a file system
    without locks a warning says so.

    Args:
        name: argument that the error names.
        target: what is written.
        inside: the target is a folder that may exist, and the lock file is `.lock` in it.

    Raises:
        InUseError: another process, or another thread, writes there; the message says which.
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
            if _held.pop(path, None):  # None in a child that has let go
                path.unlink(missing_ok=True)
                os.close(file)
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def alone(argument: str) -> Callable[[Function], Function]:
    """Decorator: `one_writer` of the path that an argument of the function names, around each call."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def alone(*args: Any, **options: Any) -> Any:
            with one_writer(argument, signature.bind(*args, **options).arguments[argument]):
                return function(*args, **options)

        return alone  # type: ignore[return-value]

    return decorate


def _acquire(name: str, target: Path, path: Path) -> int | None:
    """The descriptor of the lock file, locked; None where the file system has no locks."""
    import fcntl

    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have removed the file meanwhile; a lock on that keeps nobody out.
            if os.path.samestat(os.fstat(file), path.stat()):
                break
            os.close(file)
        except BlockingIOError as error:
            holder = os.read(file, 1000).decode(errors="replace") or "another process"
            os.close(file)
            raise InUseError(
                f"{name}: {str(target)!r} is being written by {holder}; wait for it, or choose another place"
            ) from error
        except FileNotFoundError:
            os.close(file)
        except OSError as error:
            os.close(file)
            warnings.warn(
                f"{name}: {str(target)!r} cannot be locked ({error.strerror}); see that no other process "
                "writes there",
                stacklevel=4,
            )
            return None
    os.ftruncate(file, 0)
    with suppress(OSError):  # a full disk; what is written is for people
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return file


def _let_go() -> None:
    """A child, such as a loader's worker, would keep the lock of a parent that is killed."""
    for file, _ in _held.values():
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
