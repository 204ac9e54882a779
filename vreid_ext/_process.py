"""Process-wide preconditions (main interpreter only; one thread after fork) and torchrun's variables."""

import importlib
import os


def _refuse_sub_interpreters() -> None:
    """Raise ImportError in a sub-interpreter, where importing torch deadlocks."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # Python >= 3.13, Python < 3.13
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "vreid_ext: expected the main interpreter (as for torch), got a sub-interpreter"
            )


_refuse_sub_interpreters()

import torch  # noqa: E402

_forked = False  # whether this process is a forked child that has not yet called an op of this package


def _note_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


def settle_fork() -> None:
    """Called by every op: in a forked process, set torch to one thread before the first op.

    OpenMP worker threads do not survive `fork`, so the next parallel region of torch or of a kernel would
    deadlock. The number of threads of a forked process that calls no op of this package is not changed.
    """
    global _forked
    if _forked:
        torch.set_num_threads(1)
        _forked = False


def launched(name: str, default: str | None = None) -> int:
    """Read an environment variable of torchrun: RANK, WORLD_SIZE, LOCAL_RANK or LOCAL_WORLD_SIZE.

    Raises:
        ValueError: the variable is not a number, or it is missing and has no default.
    """
    text = os.environ.get(name, default)
    if text is None or not text.isdecimal():
        raise ValueError(f"{name}: expected a number as torchrun sets it, got {text!r}")
    return int(text)
