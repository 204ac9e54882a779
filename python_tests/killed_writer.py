"""A process that adds batches to an index until it is killed.

It is forked from a server that has imported torch, because the import takes most of the time of a kill.
"""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection

BATCH = 50
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "vreid_ext.gallery"])


def _write(location: str, first: int, acknowledged: Connection) -> None:
    import torch

    from vreid_ext.gallery import Gallery

    index = Gallery(location)
    acknowledged.send(None)
    for number in range(first, 100_000):
        names = [f"{number}/{i}" for i in range(BATCH)]
        index.add(torch.full((BATCH, 6), number + 1.0), names, cameras=[number] * BATCH)
        acknowledged.send(number)


def kill_while_adding(location: str, seconds: float, first: int) -> list[int]:
    """Kill a process that adds batches from `first` on, `seconds` after it has opened the index.

    Returns the batches that it has acknowledged.
    """
    receive, send = _context.Pipe(duplex=False)
    process = _context.Process(target=_write, args=(location, first, send))
    process.start()
    send.close()
    assert receive.recv() is None
    time.sleep(seconds)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    acknowledged = []
    try:
        while receive.poll():
            acknowledged.append(receive.recv())
    except EOFError:
        pass
    return acknowledged
