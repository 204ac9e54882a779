"""What a process must be before torch is imported and kernels run, which importing this module sees to, and
what torchrun tells it.
"""

import importlib
import os


def _refuse_sub_interpreters() -> None:
    """torch, imported in a sub-interpreter, waits for itself for ever."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13 on, and before
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError("vreid_ext, like torch, runs in the main interpreter only: this is another one")


_refuse_sub_interpreters()

import torch  # noqa: E402

# OpenMP's threads do not live on in a forked process, such as a data loader's worker. The next parallel
# region, torch's or ours, would wait for them for ever.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def launched(name: str, default: str | None = None) -> int:
    """A number that torchrun puts into the environment: RANK, WORLD_SIZE, LOCAL_RANK or LOCAL_WORLD_SIZE.

    Raises:
        ValueError: the variable is missing and has no default, or it is no number.
    """
    text = os.environ.get(name, default)
    if text is None or not text.isdecimal():
        raise ValueError(f"{name}: expected a number as torchrun sets it, got {text!r}")
    return int(text)
