"""Errors that only a kernel can find, because it looks at the numbers."""

from torch import Tensor


class NotFiniteError(ValueError):
    """A row of an argument holds NaN, infinity or numbers whose squares overflow."""

    def __init__(self, name: str, row: int) -> None:
        super().__init__(
            f"{name}: expected finite numbers, got NaN, infinity or numbers whose squares overflow in row "
            f"{row}"
        )


def finite_rows(name: str, squares: Tensor, metric: str) -> None:
    """Rows are finite, given their squared norms, and short enough for squares in float32 where a metric
    squares.
    """
    bad = ~squares.isfinite()
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"{name}: expected finite numbers, got NaN or infinity in {int(bad.sum())} rows, the first {row}"
        )
    if metric == "euclidean" and (squares > 1e36).any():
        row = int((squares > 1e36).nonzero()[0])
        raise ValueError(f"{name}: expected features in a smaller unit, got a norm above 1e18 in row {row}")
