"""What a process must be before torch is imported and kernels run; importing this module sees to it."""

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
