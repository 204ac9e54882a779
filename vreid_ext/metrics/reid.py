"""CMC, mAP and mINP of person re-identification."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vreid_ext.metrics.ranking import Array, Retrieval


@dataclass(frozen=True)
class ReIDResult:
    """Result of `evaluate`. Rates are fractions in [0, 1]; `str()` gives one line in percent.

    Attributes:
        cmc: (max_rank,) float64; cmc[k-1] is the fraction of valid queries with a match among their first k.
        mAP: mean over valid queries of the average precision.
        mINP: mean over valid queries of positives / rank of the last positive (Ye et al., 2021).
        valid_queries: queries with at least one positive; the others are skipped.
        per_query: "ap" (Q,) float64, NaN for a skipped query; "first_hit" (Q,) int64, the rank of the first
            positive counted from 1, 0 for a skipped query.
        protocol: metric, AP definition and what was removed from the gallery, in words.
    """

    cmc: Tensor
    mAP: float  # noqa: N815 - the field's spelling
    mINP: float  # noqa: N815
    valid_queries: int
    per_query: dict[str, Tensor] = field(repr=False)
    protocol: str

    def rank(self, k: int) -> float:
        """CMC at rank k, counted from 1."""
        if not 1 <= k <= len(self.cmc):
            raise ValueError(f"k: got {k}, wanted 1 ... {len(self.cmc)}")
        return float(self.cmc[k - 1])

    def row(self) -> dict[str, float]:
        """The numbers papers print: mAP, mINP and rank 1, 5, 10, 20 as far as `cmc` goes."""
        ranks = {f"R{k}": self.rank(k) for k in (1, 5, 10, 20) if k <= len(self.cmc)}
        return {"mAP": self.mAP, "mINP": self.mINP, **ranks}

    def __str__(self) -> str:
        row = "  ".join(f"{name} {100 * value:.1f}" for name, value in self.row().items())
        return f"{row}  ({self.valid_queries} of {len(self.per_query['ap'])} queries; {self.protocol})"


def evaluate(
    query: Array,
    gallery: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    *,
    metric: str = "cosine",
    ap: str = "precision",
    max_rank: int = 50,
    junk: bool = True,
    exclude: Array | None = None,
    block_size: int | None = None,
) -> ReIDResult:
    """CMC, mAP and mINP from features, exact and in bounded memory.

    With a query's kept gallery items in ascending order of distance, h_1 < ... < h_P the ranks of its P
    positives (kept items of its pid) and p(r) the precision among the first r:

        CMC(k) = 1[h_1 <= k]        INP = P / h_P
        AP = 1/P sum_j p(h_j)                                      "precision"
        AP = 1/P sum_j (p(h_j - 1) + p(h_j)) / 2,  p(0) = 1        "trapezoid", as MARS's own code

    and means over the queries that have a positive. One positive at rank 2 has AP 0.5 and 0.25.

    Args:
        query: features (Q,D), torch or NumPy, floating. Distances are computed in float64 on its device.
        gallery: features (G,D).
        q_pids: (Q,) integer identities. A query of pid -1 has no positive.
        g_pids: (G,) integer identities. Items of pid -1 are junk detections by the convention of Market-1501
            and MARS and always removed; any other pid that no query has (0, the distractors) stays as a
            negative.
        q_camids: (Q,) integer cameras.
        g_camids: (G,) integer cameras.
        metric: "cosine", 1 minus the cosine of the angle (a zero vector is at distance 1 from all), or
            "euclidean".
        ap: "precision" (torchreid, fast-reid) or "trapezoid".
        max_rank: length of `cmc`. Where fewer items are ranked, the curve stays at its last value.
        junk: remove a query's own camera's items of its own pid, the protocol of all multi-camera sets.
            False for data of one camera, where that would remove every positive.
        exclude: (Q,) integer index of the gallery item that is the query itself, -1 where there is none; it
            is removed. Needed with `junk=False` when queries are also in the gallery (leave one out:
            `exclude=torch.arange(Q)`).
        block_size: queries ranked at once; memory grows with block_size * G, never with Q * G. By default
            so many that one such matrix takes 16 MiB.

    Equal distances rank by gallery index, as a stable sort gives.

    Raises:
        TypeError, ValueError: naming the argument, what was got and what is wanted; features that are not
            finite; no query with a positive.
    """
    if ap not in ("precision", "trapezoid"):
        raise ValueError(f"ap: got {ap!r}, wanted 'precision' or 'trapezoid'")
    if max_rank < 1:
        raise ValueError(f"max_rank: got {max_rank}, wanted at least 1")
    retrieval = Retrieval(
        query, gallery, q_pids, g_pids, q_camids, g_camids,
        metric=metric, junk=junk, exclude=exclude, block_size=block_size,
    )  # fmt: skip
    scored = [_score(retrieval.matches(ranking), ap) for ranking in retrieval.rankings()]
    average_precision, inp, first_hit = (torch.cat(part) for part in zip(*scored, strict=True))
    valid = first_hit > 0
    if not valid.any():
        raise ValueError("q_pids: no query has a positive left in the gallery, wanted at least one that has")
    histogram = torch.bincount(first_hit[valid].clamp(max=max_rank + 1), minlength=max_rank + 2)
    return ReIDResult(
        cmc=histogram[1:-1].cumsum(0).double() / valid.sum(),
        mAP=float(average_precision[valid].mean()),
        mINP=float(inp[valid].mean()),
        valid_queries=int(valid.sum()),
        per_query={"ap": average_precision, "first_hit": first_hit},
        protocol=f"{ap} AP; {retrieval.protocol}",
    )


def _score(matches: Tensor, ap: str) -> tuple[Tensor, Tensor, Tensor]:
    """AP, INP and rank of the first hit (0 without one) of each row, from flags (q,G) in ranked order."""
    row, column = (index.cpu() for index in matches.nonzero(as_tuple=True))  # row by row: few entries
    positives = torch.bincount(row, minlength=len(matches))
    rank = column + 1
    hit = torch.arange(1, len(row) + 1) - (positives.cumsum(0) - positives)[row]  # 1, 2, ... within a row
    precision = hit.double() / rank
    if ap == "trapezoid":
        precision = (torch.where(rank > 1, (hit - 1) / (rank - 1).double(), 1.0) + precision) / 2
    total = torch.zeros(len(matches), dtype=torch.float64).scatter_add(0, row, precision)
    none = torch.zeros_like(positives)
    first = none.scatter_reduce(0, row, rank, "amin", include_self=False)
    last = none.scatter_reduce(0, row, rank, "amax", include_self=False)
    return total / positives, positives / last.double(), first  # 0 / 0: NaN marks a skipped query
