"""Lists of one group after the other, such as the positives of each query, and where each group starts."""

import torch
from torch import Tensor


def starts(row: Tensor, rows: int) -> Tensor:
    """(rows+1,): the start of each row in a sorted list of row numbers, and the end of the last row."""
    return torch.cat([row.new_zeros(1), torch.bincount(row, minlength=rows).cumsum(0)])
