"""Progress bars of a training run."""

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class RunProgress:
    """Progress bars for the check of the test images, the training and the evaluations."""

    def __init__(self, epochs: int, batches: int, enabled: bool = True) -> None:
        self._epochs, self._batches = epochs, batches
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
        )
        self._train = self._bar.add_task("train", total=epochs * batches)
        self._check = self._bar.add_task("check test images", total=None, visible=False)
        self._eval = self._bar.add_task("evaluate", total=None, visible=False)

    def __enter__(self) -> "RunProgress":
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def step(self, epoch: int, batch: int, loss: float) -> None:
        """Report that `batch` batches of `epoch` are done."""
        self._bar.update(
            self._train,
            completed=epoch * self._batches + batch,
            description=f"epoch {epoch + 1}/{self._epochs}  loss {loss:.3f}",
        )

    def check(self, done: int, total: int) -> None:
        """Report that the images of `done` of `total` tracklets have been checked."""
        self._bar.update(self._check, completed=done, total=total, visible=done < total)

    def evaluation(self, done: int, total: int) -> None:
        """Report that the features of `done` of `total` clips have been extracted."""
        self._bar.update(self._eval, completed=done, total=total, visible=done < total)
