"""Batches of clips, decoded in this process or in workers."""

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
        RuntimeError: a worker was killed.
    """
    try:
        yield from DataLoader(clips, batch_sampler=batches, num_workers=workers)
    except DatasetError as error:
        # Out of a worker comes its traceback, which ends in what it raised.
        raise DatasetError(str(error).rpartition("DatasetError: ")[2].rstrip()) from error
