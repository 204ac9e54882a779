"""Errors about tensor values, which are raised during the computation."""

from torch import Tensor

from vreid_ext import _checks
from vreid_ext.precision import widened


class NotFiniteError(ValueError):
    """A row of an argument holds NaN, infinity or numbers whose squares overflow."""

    def __init__(self, name: str, row: int) -> None:
        super().__init__(
            f"{name}: expected finite numbers, got NaN, infinity or numbers whose squares overflow in row "
            f"{row}"
        )


class NotFiniteRowsError(ValueError):
    """Some rows of an argument hold NaN or infinity.

    Attributes:
        count: number of these rows.
        first: the first of them.
    """

    def __init__(self, name: str, finite: Tensor) -> None:
        self.count, self.first = int((~finite).sum()), int((~finite).nonzero()[0])
        super().__init__(
            f"{name}: expected finite numbers, got NaN or infinity in {self.count} rows, "
            f"the first is {self.first}"
        )


def all_finite(name: str, finite: Tensor) -> None:
    """Check (n,) bool, which tells whether the numbers of each row are finite."""
    if not finite.all():
        raise NotFiniteRowsError(name, finite)


def finite_squares(name: str, x: Tensor) -> None:
    """Check that the squared norms of rows are finite. Skipped on a GPU, where it would synchronize."""
    if not _checks.seen(x):
        return
    finite = widened(x.detach()).square().sum(1).isfinite()
    if not finite.all():
        raise NotFiniteError(name, int((~finite).nonzero()[0]))


def finite_rows(name: str, squares: Tensor, metric: str) -> None:
    """Check, given squared norms, that rows are finite and, for "euclidean", have norms of at most 1e18."""
    all_finite(name, squares.isfinite())
    if metric == "euclidean" and (squares > 1e36).any():
        row = int((squares > 1e36).nonzero()[0])
        raise ValueError(f"{name}: expected rows with a norm of at most 1e18, got a larger one in row {row}")
