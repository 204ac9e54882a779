"""Batches of clips, decoded in this process or in workers."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader

from vreid_ext.data import ClipDataset, DatasetError


def load(clips: ClipDataset, batches: Sequence[Any], workers: int) -> Iterator[dict[str, Any]]:
    """Each of some batches of items, collated, in order.

    Args:
        batches: lists of what `clips` is indexed with.
        workers: processes that decode ahead; 0 decodes in this one.

    Raises:
        DatasetError: an image cannot be read; the same line whichever process has found it.
        RuntimeError: a worker failed or was killed, in one line.
    """
    try:
        yield from DataLoader(clips, batch_sampler=batches, num_workers=workers)
    except DatasetError as error:
        # A worker's error has its traceback as the message, which ends in what it raised.
        raise DatasetError(str(error).rpartition("DatasetError: ")[2].rstrip()) from error
    except Exception as error:
        if not workers or "DataLoader worker" not in str(error):
            raise
        raise RuntimeError(f"train.workers: {_reason(str(error), workers)}") from error


def _reason(message: str, workers: int) -> str:
    """Why a worker failed, from its traceback or from what torch says of one that was killed."""
    what = message.splitlines()[-1 if message.startswith("Caught ") else 0]
    if re.search(r"shared memory|/torch_|Bus error", message):
        return (
            f"{workers} workers need more shared memory than /dev/shm has ({what}); enlarge it, such as with "
            "docker run --shm-size=1g, or set train.workers=0"
        )
    if re.search(r"Too many open files|ancdata", message):
        return f"{workers} workers need more open files ({what}); raise `ulimit -n`, or set train.workers=0"
    if message.startswith("Caught "):
        return f"a worker failed: {what}; train.workers=0 decodes without workers"
    return f"{what}; if it lacked memory or shared memory (/dev/shm), use fewer workers, or train.workers=0"
