"""Helpers of the comparisons with the authors' code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@contextmanager
def addmm_of_old_torch() -> Iterator[None]:
    """Takes `x.addmm_(beta, alpha, a, b)`, as code of 2018 calls it, in addition to the present arguments."""
    today = Tensor.addmm_

    def addmm_(self: Tensor, *values: Any, **options: Any) -> Tensor:
        if len(values) == 4:
            beta, alpha, a, b = values
            return today(self, a, b, beta=beta, alpha=alpha)
        return today(self, *values, **options)

    Tensor.addmm_ = addmm_  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Tensor.addmm_ = today  # type: ignore[method-assign]


def write(path: Path, title: str, about: str | None, rows: Sequence[tuple[str, Tensor, Tensor]]) -> None:
    """A page with the largest difference of each pair (theirs, ours), as a share of the largest of theirs.

    Where theirs is zero up to rounding, the difference itself is compared.

    Raises:
        SystemExit: a difference above 1e-5; the page is written all the same.
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
        raise SystemExit(f"differs by {worst:.1e}")
