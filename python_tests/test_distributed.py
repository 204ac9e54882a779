"""Two processes with half a batch each get the loss and the gradients of one with the whole batch."""

import subprocess
import sys

import torch

STEP = """
import sys, torch
import torch.distributed as dist
from vreid_ext.losses import TripletLoss, gather_with_gradient

rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
torch.manual_seed(0)
x, y = torch.randn(12, 6), torch.tensor([0, 0, 1, 1, 0, 2, 2, 0, 1, 2, 3, 3])
model = torch.nn.Linear(6, 5)
module = model
if size > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    module = torch.nn.parallel.DistributedDataParallel(model)
part = module(x.chunk(size)[rank])
loss = TripletLoss()(gather_with_gradient(part), gather_with_gradient(y.chunk(size)[rank]))
loss.backward()
torch.save([loss.detach(), *(p.grad for p in model.parameters())], f"{folder}/{size}-{rank}.pt")
if size > 1:
    dist.destroy_process_group()
"""


def test_two_processes_equal_one(tmp_path):
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", STEP, str(rank), str(size), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for size in (1, 2)
        for rank in range(size)
    ]
    for run in runs:
        _, errors = run.communicate(timeout=200)
        assert run.returncode == 0, errors
    one, *two = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert one[0] > 0
    for each in two:
        for a, b in zip(each, one, strict=True):
            torch.testing.assert_close(a, b)
