"""Helpers for the comparisons with the authors' code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@contextmanager
def addmm_of_old_torch() -> Iterator[None]:
    """Accept both the current signature and that of 2018, `x.addmm_(beta, alpha, a, b)`."""
    current = Tensor.addmm_

    def addmm_(self: Tensor, *values: Any, **options: Any) -> Tensor:
        if len(values) == 4:
            beta, alpha, a, b = values
            return current(self, a, b, beta=beta, alpha=alpha)
        return current(self, *values, **options)

    Tensor.addmm_ = addmm_  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Tensor.addmm_ = current  # type: ignore[method-assign]


def write(path: Path, title: str, about: str | None, rows: Sequence[tuple[str, Tensor, Tensor]]) -> None:
    """Write a page with the largest relative difference of each pair (theirs, ours).

    It is relative to the largest absolute value of theirs, or absolute if theirs is zero up to rounding.

    Raises:
        SystemExit: a difference exceeds 1e-5. The page is written nevertheless.
    """
    lines = [
        f"# {title}",
        "",
        (about or "").strip(),
        "",
        "| | largest absolute value, theirs | largest difference / this value |",
        "|---|---|---|",
    ]
    worst = 0.0
    for label, theirs, ours in rows:
        largest = theirs.detach().abs().max()
        difference = (theirs - ours).detach().abs().max()
        share = (difference / (largest if largest > 1e-12 else 1)).item()
        worst = max(worst, share)
        lines.append(f"| {label} | {largest.item():.3g} | {share:.1e} |")
    lines += ["", f"torch {torch.__version__}, float64, CPU. Tolerance: 1e-5.", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    if not worst <= 1e-5:
        raise SystemExit(f"expected relative differences of at most 1e-5, got {worst:.1e}")
