"""Log of a run: one JSON line per step, epoch and evaluation, and TensorBoard curves."""

import json
import os
from pathlib import Path
from typing import Any


class RunLog:
    """Writes `RUN/log.jsonl` and `RUN/tensorboard`.

    Args:
        run: folder of the run.
        length: number of bytes of the existing log to keep. A resumed run passes the length at its
            checkpoint, so that repeated steps are not logged twice.
        step: the optimizer step from which the run is resumed.

    Raises:
        ValueError: the log is shorter than `length`.
    """

    def __init__(self, run: Path, length: int = 0, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = run / "log.jsonl"
        size = path.stat().st_size if path.is_file() else 0
        if size < length:
            raise ValueError(
                f"out: expected at least {length} bytes in {str(path)!r}, as at the checkpoint, got {size}; "
                "restore the file or choose another folder"
            )
        self._file = path.open("ab")
        self._file.truncate(length)
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one line {"kind", "step", ...}. Floats are also written to TensorBoard as kind/name."""
        line = json.dumps({"kind": kind, "step": step, **values}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def length(self) -> int:
        """Flush the log to disk and return its length in bytes."""
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()
        self._board.close()
