"""Errors that only a kernel can find, because it looks at the numbers."""


class NotFiniteError(ValueError):
    """A row of an argument holds NaN, infinity or numbers whose squares overflow."""

    def __init__(self, name: str, row: int) -> None:
        super().__init__(
            f"{name}: got NaN, infinity or numbers whose squares overflow in row {row}, wanted finite ones"
        )
