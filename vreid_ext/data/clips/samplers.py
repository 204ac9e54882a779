"""Batch samplers for identity-balanced batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class PKBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields batches of P identities x K tracklets as lists of (tracklet index, seed) for `ClipDataset`.

    If an identity has fewer than K tracklets, all of them are used equally often, up to a difference of one.
    Each repetition has its own seed, so its frames and augmentation are drawn independently.

    In each epoch the identities are shuffled and split into groups of P. By default an epoch has
    num_identities // P batches, each identity occurs at most once, and the remainder is dropped (like
    `drop_last` of `DataLoader`). If `batches` is given, the identities are shuffled again whenever fewer than
    P remain.

    The batches depend only on (seed, epoch): call `set_epoch(e)` at the start of epoch e. With num_replicas
    processes the global batch is still P x K, and rank r gets the r-th group of P / num_replicas identities.
    Batches, clips and augmentation are therefore the same for any number of processes.

    Args:
        pids: identity of each training tracklet.
        p: P, number of identities per global batch.
        k: K, number of tracklets per identity.
        seed: random seed, at least 0.
        batches: number of batches per epoch; None: one pass over the identities.
        num_replicas: number of processes.
        rank: rank of this process.

    Raises:
        ValueError: fewer than P identities, P not divisible by num_replicas, or a number out of range.
    """

    def __init__(
        self,
        pids: Sequence[int],
        p: int,
        k: int,
        seed: int = 0,
        *,
        batches: int | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        for name, value in (("p", p), ("k", k), ("num_replicas", num_replicas)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if seed < 0:
            raise ValueError(f"seed: expected at least 0, got {seed}")
        if batches is not None and batches < 1:
            raise ValueError(
                f"batches: expected at least 1, or None for one pass over the identities, got {batches}"
            )
        if not 0 <= rank < num_replicas:
            raise ValueError(
                f"rank: expected 0 .. {num_replicas - 1} for {num_replicas} processes, got {rank}"
            )
        if p % num_replicas:
            raise ValueError(
                f"p: expected a multiple of the {num_replicas} processes, got {p} identities per batch"
            )
        groups: dict[int, list[int]] = {}
        for index, pid in enumerate(pids):
            groups.setdefault(pid, []).append(index)
        if len(groups) < p:
            raise ValueError(f"p: expected at most the {len(groups)} identities of the training set, got {p}")
        self._groups = [groups[pid] for pid in sorted(groups)]
        self.p, self.k, self.seed, self.epoch = p, k, seed, 0
        self.num_replicas, self.rank = num_replicas, rank
        self._batches = len(groups) // p if batches is None else batches

    def __repr__(self) -> str:
        share = f", process {self.rank} of {self.num_replicas}" if self.num_replicas > 1 else ""
        batches = f"{self._batches} batches of {self.p} x {self.k}"
        return f"PKBatchSampler({batches}, {len(self._groups)} persons{share})"

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (at least 0) of the next iteration."""
        if epoch < 0:
            raise ValueError(f"epoch: expected at least 0, got {epoch}")
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches per epoch."""
        return self._batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        share = self.p // self.num_replicas
        mine = slice(self.rank * share, (self.rank + 1) * share)
        passes = len(self._groups) // self.p
        for number in range(self._batches):
            if number % passes == 0:
                order = rng.permutation(len(self._groups))
            chosen = order[number % passes * self.p :][: self.p]
            # Every process draws for the whole batch, so that all generators stay in the same state.
            batch = [self._draw(self._groups[g], rng) for g in chosen]
            yield [item for items in batch[mine] for item in items]

    def _draw(self, tracklets: list[int], rng: np.random.Generator) -> list[tuple[int, int]]:
        rounds = -(-self.k // len(tracklets))
        picks = np.concatenate([rng.permutation(tracklets) for _ in range(rounds)])[: self.k]
        seeds = rng.integers(2**63, size=self.k, dtype=np.int64)
        return list(zip(picks.tolist(), seeds.tolist(), strict=True))


class JointBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields batches of P identities x K tracklets with an equal number of identities from each data set.

    The identities of each data set are drawn as by `PKBatchSampler`. An epoch is one pass over the data set
    with the most identities; the smaller data sets are repeated.

    Args:
        pids: for each data set, the identity of each training tracklet. Tracklets are indexed through
            all data sets in this order.
        p: P, number of identities per global batch, a multiple of the number of data sets.
        k: K, number of tracklets per identity.
        seed: random seed, at least 0.
        num_replicas: number of processes; divides P / number of data sets.
        rank: rank of this process.

    Raises:
        ValueError: see `PKBatchSampler`; also if P is not a multiple of the number of data sets.
    """

    def __init__(
        self,
        pids: Sequence[Sequence[int]],
        p: int,
        k: int,
        seed: int = 0,
        *,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        share = p // len(pids)
        if p % len(pids):
            raise ValueError(
                f"p: expected a multiple of the {len(pids)} data sets, got {p} identities per batch"
            )
        batches = max(len(set(each)) for each in pids) // max(share, 1)
        self.parts = [
            PKBatchSampler(
                each, share, k, seed + (number << 32), batches=max(batches, 1),
                num_replicas=num_replicas, rank=rank,
            )
            for number, each in enumerate(pids)
        ]  # fmt: skip
        self.first = np.cumsum([0, *map(len, pids)]).tolist()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (at least 0) of the next iteration."""
        for part in self.parts:
            part.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.parts[0])

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for shares in zip(*self.parts, strict=True):
            yield [(first + index, seed) for first, share in zip(self.first, shares) for index, seed in share]
