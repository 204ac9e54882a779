"""Identity-balanced batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class PKBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of P identities x K tracklets each, as lists of (tracklet index, seed) for `ClipDataset`.

    An identity with fewer than K tracklets is filled up with repeats, each of its tracklets once before any
    twice; repeats have seeds of their own, hence other clips.

    Epoch: the identities are shuffled and cut into groups of P, so that each comes up at most once; there are
    identities // P batches, and the identities left over (another random few each time) sit the epoch out.
    With `batches` of them wanted, identities are shuffled anew whenever fewer than P are left.

    Everything is a function of (seed, epoch): call set_epoch(e) at the start of epoch e. With num_replicas
    processes the global batch is still P x K, and rank r gets the r-th P / num_replicas of its identities,
    so that together they see exactly the batches, clips and augmentation that one process would see.

    Args:
        pids: identity of every training tracklet.
        p: P, identities per global batch.
        k: K, tracklets per identity.
        seed: 0 or more.
        batches: batches per epoch; None: one pass over the identities.
        num_replicas: number of processes.
        rank: number of this process.

    Raises:
        ValueError: more identities wanted than there are, P not divisible by num_replicas, a number out of
            range.
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
            raise ValueError(f"seed: expected 0 or more, got {seed}")
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
                f"p: {p} identities per batch cannot be shared equally by {num_replicas} processes"
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
        """Selects the epoch (0 or more) whose batches the next iteration yields."""
        if epoch < 0:
            raise ValueError(f"epoch: expected 0 or more, got {epoch}")
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
            # Every process draws for the whole batch: so their streams stay equal, however many they are.
            batch = [self._draw(self._groups[g], rng) for g in chosen]
            yield [item for items in batch[mine] for item in items]

    def _draw(self, tracklets: list[int], rng: np.random.Generator) -> list[tuple[int, int]]:
        rounds = -(-self.k // len(tracklets))
        picks = np.concatenate([rng.permutation(tracklets) for _ in range(rounds)])[: self.k]
        seeds = rng.integers(2**63, size=self.k, dtype=np.int64)
        return list(zip(picks.tolist(), seeds.tolist(), strict=True))


class JointBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of P identities x K tracklets, as many identities of each of several data sets.

    Each set's share is drawn as `PKBatchSampler` draws it; the epoch is one pass over the set with the most
    identities, and the others start anew as often as that takes.

    Args:
        pids: for each data set the identity of every training tracklet; tracklets are numbered set after set.
        p: P, identities per global batch; divisible by the number of sets.
        k: K, tracklets per identity.
        seed: 0 or more.
        num_replicas: number of processes; P divided by the number of sets is divisible by it.
        rank: number of this process.

    Raises:
        ValueError: as `PKBatchSampler`, or P cannot be shared equally by the sets.
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
            raise ValueError(f"p: {p} identities per batch cannot be shared equally by {len(pids)} data sets")
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
        """Selects the epoch (0 or more) whose batches the next iteration yields."""
        for part in self.parts:
            part.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.parts[0])

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for shares in zip(*self.parts, strict=True):
            yield [(first + index, seed) for first, share in zip(self.first, shares) for index, seed in share]
