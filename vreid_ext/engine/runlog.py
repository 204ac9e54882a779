"""What a run writes down: one JSON line per step, epoch and evaluation, and TensorBoard curves."""

import json
import os
from pathlib import Path
from typing import Any


class RunLog:
    """`RUN/log.jsonl` and `RUN/tensorboard`.

    Args:
        run: the run's folder.
        length: bytes of the log to keep. A resumed run passes the length at its checkpoint, so that the
            steps it repeats are logged once.
        step: the optimizer step the run continues from.

    Raises:
        ValueError: the log is shorter than `length`.
    """

    def __init__(self, run: Path, length: int = 0, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = run / "log.jsonl"
        there = path.stat().st_size if path.is_file() else 0
        if there < length:
            raise ValueError(
                f"out: {str(path)!r} has {there} bytes, the checkpoint is from when it had {length}; restore "
                "it, or choose another folder"
            )
        self._file = path.open("ab")
        self._file.truncate(length)
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one line {"kind", "step", ...}; numbers also go to TensorBoard as kind/name."""
        line = json.dumps({"kind": kind, "step": step, **values}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def length(self) -> int:
        """Bytes written so far, once they are on the disk."""
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()
        self._board.close()
