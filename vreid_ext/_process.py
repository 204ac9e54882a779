"""The process: main interpreter only, one thread in a forked child, and the variables that torchrun sets."""

import importlib
import os


def _refuse_sub_interpreters() -> None:
    """Importing torch in a sub-interpreter deadlocks."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13 on, and before
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError("vreid_ext, like torch, runs in the main interpreter only: this is another one")


_refuse_sub_interpreters()

import torch  # noqa: E402

_forked = False  # whether this process was forked and has called no op of this package since


def _note_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


def settle_fork() -> None:
    """Called by every op: in a forked process, set torch to one thread before the first op.

    OpenMP's worker threads do not survive `fork`, so the next parallel region of torch or of a kernel would
    deadlock. A forked process that calls no op of this package is left as it is.
    """
    global _forked
    if _forked:
        torch.set_num_threads(1)
        _forked = False


def launched(name: str, default: str | None = None) -> int:
    """A number that torchrun puts into the environment: RANK, WORLD_SIZE, LOCAL_RANK or LOCAL_WORLD_SIZE.

    Raises:
        ValueError: the variable is missing and has no default, or it is no number.
    """
    text = os.environ.get(name, default)
    if text is None or not text.isdecimal():
        raise ValueError(f"{name}: expected a number as torchrun sets it, got {text!r}")
    return int(text)
