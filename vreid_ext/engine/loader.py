"""Loading of batches of clips in the main process or in worker processes."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader

from vreid_ext.data import ClipDataset, DatasetError


def load(clips: ClipDataset, batches: Sequence[Any], workers: int) -> Iterator[dict[str, Any]]:
    """Yield the collated batches in order.

    Args:
        clips: the data set.
        batches: for each batch, the list of indices into `clips`.
        workers: number of worker processes that prefetch batches; 0: load in the main process.

    Raises:
        DatasetError: an image cannot be read. The message does not depend on the number of workers.
        RuntimeError: a worker failed or was killed. The message is a single line.
    """
    try:
        yield from DataLoader(clips, batch_sampler=batches, num_workers=workers)
    except DatasetError as error:
        # DataLoader puts the whole traceback of a worker into the message; keep only the original message.
        raise DatasetError(str(error).rpartition("DatasetError: ")[2].rstrip()) from error
    except Exception as error:
        if not workers or "DataLoader worker" not in str(error):
            raise
        raise RuntimeError(f"train.workers: {_reason(str(error), workers)}") from error


def _reason(message: str, workers: int) -> str:
    """Derive why a worker failed from its traceback, or from torch's message if it was killed."""
    cause = message.splitlines()[-1 if message.startswith("Caught ") else 0]
    if re.search(r"shared memory|/torch_|Bus error", message):
        return (
            f"{workers} workers need more shared memory than /dev/shm has ({cause}); enlarge it, e.g. with "
            "docker run --shm-size=1g, or set train.workers=0"
        )
    if re.search(r"Too many open files|ancdata", message):
        return f"{workers} workers need more open files ({cause}); raise `ulimit -n`, or set train.workers=0"
    if message.startswith("Caught "):
        return f"a worker failed: {cause}; set train.workers=0 to load without workers"
    return f"{cause}; if memory or shared memory ran out, lower train.workers, e.g. to train.workers=0"
