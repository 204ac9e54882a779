"""A gallery spread over processes gives the result of one process, bit for bit."""

import os
import subprocess
import sys

import pytest
import torch

from vreid_ext import metrics

PROCESS = """
import sys
from datetime import timedelta
import torch
import torch.distributed as dist
from vreid_ext import metrics

dist.init_process_group("gloo", timeout=timedelta(seconds=60))
rank, size = dist.get_rank(), dist.get_world_size()
query, gallery, labels = torch.load(sys.argv[1])
bounds = [len(gallery) * n // size + 3 * (0 < n < size) for n in range(size + 1)]  # of unequal length
if sys.argv[3] == "die" and rank == 1:
    sys.exit(7)
shard = metrics.Shard(gallery[bounds[rank] : bounds[rank + 1]], bounds[rank], len(gallery))
if sys.argv[5] == "own labels":
    labels[1::2] = [label[bounds[rank] : bounds[rank + 1]] for label in labels[1::2]]
exclude = torch.arange(len(query)) * 17 - 1
result = metrics.evaluate(query, shard, *labels, metric=sys.argv[4], exclude=exclude)
figures = result.cmc, result.mAP, result.mINP, result.per_query, result.protocol
torch.save(figures, f"{sys.argv[2]}/{rank}.pt")
dist.destroy_process_group()
"""


def samples():
    generator = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(40, 24, generator=generator), torch.randn(1300, 24, generator=generator)
    gallery[600:700] = gallery[100:200]  # equal items in different shards
    return query, gallery, [torch.randint(-1, 9, (n,), generator=generator) for n in (40, 1300, 40, 1300)]


def torchrun(tmp_path, processes, mode, metric, whose="all labels"):
    torch.save(samples(), tmp_path / "samples.pt")
    (tmp_path / "process.py").write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    samples_file = str(tmp_path / "samples.pt")
    return subprocess.run(
        [*command, str(tmp_path / "process.py"), samples_file, str(tmp_path), mode, metric, whose],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize(
    ("processes", "metric", "whose"),
    [(2, "cosine", "all labels"), (3, "euclidean", "all labels"), (3, "cosine", "own labels")],
)
def test_processes_give_the_bits_of_one(tmp_path, processes, metric, whose):
    done = torchrun(tmp_path, processes, "live", metric, whose)
    assert done.returncode == 0, done.stderr[-3000:]
    query, gallery, labels = samples()
    exclude = torch.arange(len(query)) * 17 - 1
    wanted = metrics.evaluate(query, gallery, *labels, metric=metric, exclude=exclude)
    for rank in range(processes):
        cmc, mean_ap, mean_inp, per_query, protocol = torch.load(tmp_path / f"{rank}.pt")
        assert protocol == wanted.protocol
        assert torch.equal(cmc, wanted.cmc)
        assert (mean_ap, mean_inp) == (wanted.mAP, wanted.mINP)
        assert torch.equal(per_query["first_hit"], wanted.per_query["first_hit"])
        assert torch.equal(per_query["ap"].nan_to_num(-1), wanted.per_query["ap"].nan_to_num(-1))


def test_a_lost_process_is_an_error(tmp_path):
    done = torchrun(tmp_path, 2, "die", "cosine")
    assert done.returncode != 0
    assert not list(tmp_path.glob("[0-9].pt"))


def test_a_shard_lies_within_its_gallery():
    query, gallery, labels = samples()
    with pytest.raises(ValueError, match=r"^gallery: expected .*, got 1 to 1300"):
        metrics.evaluate(query, metrics.Shard(gallery, 1, 1300), *labels)
    with pytest.raises(ValueError, match=r"^gallery: expected .*, got a Shard"):
        metrics.evaluate(query, metrics.Shard(gallery, 0, 1300), *labels, metric=torch.cdist)
