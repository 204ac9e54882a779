"""Loading of batches of clips in the main process or in worker processes."""

import re
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset, default_collate

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
    if not workers:
        yield from DataLoader(clips, batch_sampler=batches)
        return
    try:
        for batch in DataLoader(
            _Batches(clips), batch_sampler=batches, num_workers=workers, collate_fn=_unchanged
        ):
            if isinstance(batch, _Failure):
                break
            yield batch
        else:
            return
    except (OSError, RuntimeError) as error:  # a worker was killed, or its batch could not be received
        raise RuntimeError(f"train.workers: {_reason(str(error), workers)}") from error
    raise batch.error(workers)


class _Failure(NamedTuple):
    """An exception in a worker. As text, since not every exception can be sent to another process."""

    dataset_error: bool
    message: str
    summary: str  # one line with the type
    traceback: str

    def error(self, workers: int) -> Exception:
        if self.dataset_error:
            return DatasetError(self.message)
        found = _exhausted(self.summary, workers)
        way_out = "set train.workers=0 to load without workers"
        error = RuntimeError(f"train.workers: {found or f'a worker failed: {self.summary}; {way_out}'}")
        error.add_note(self.traceback)
        return error


class _Batches(Dataset[Any]):
    """A data set whose items are collated batches, or the exception that reading one has raised.

    DataLoader would put the whole traceback into the message of the exception.
    """

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def __getitems__(self, indices: Sequence[Any]) -> dict[str, Any] | _Failure:
        try:
            batch: dict[str, Any] = default_collate([self.clips[i] for i in indices])
        except Exception as error:
            summary = traceback.format_exception_only(error)[-1].splitlines()[0]
            return _Failure(isinstance(error, DatasetError), str(error), summary, traceback.format_exc())
        return batch


def _unchanged(batch: Any) -> Any:
    return batch


def _reason(message: str, workers: int) -> str:
    """Why no batch arrived, from the message of torch."""
    cause = message.splitlines()[0]
    return _exhausted(message, workers) or (
        f"{cause}; if memory or shared memory ran out, lower train.workers, e.g. to train.workers=0"
    )


def _exhausted(message: str, workers: int) -> str | None:
    """Which resource of the workers ran out, if any; torch reports this in the text of the message only."""
    cause = message.splitlines()[0]
    if re.search(r"shared memory|/torch_|Bus error", message):
        return (
            f"{workers} workers need more shared memory than /dev/shm has ({cause}); enlarge it, e.g. with "
            "docker run --shm-size=1g, or set train.workers=0"
        )
    if re.search(r"Too many open files|ancdata", message):
        return f"{workers} workers need more open files ({cause}); raise `ulimit -n`, or set train.workers=0"
    return None
