"""The native module in many threads, in forked processes and in other interpreters."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vreid_ext import ops

native = pytest.importorskip("vreid_ext._native", reason="vreid_ext._native is not built")


def results(seed: int) -> list[Tensor]:
    """Every op of the backend, forward and backward, on inputs drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, logits = draw(2, 3, 37, 8, 6).relu().requires_grad_(), draw(2, 3, 7, 48).requires_grad_()
    rows, labels = draw(301, 20).requires_grad_(), torch.randint(40, (301,), generator=generator)
    pooled = ops.sta_pool(x, 4, backend="native")
    regions = ops.region_pool(logits, x, backend="native")
    hard = ops.batch_hard(rows, labels, backend="native")
    differentiable = [
        *pooled,
        ops.attention_map(x, "l2", "l2", backend="native"),
        ops.fuse(x, ops.block_scores(pooled.attention, 4, backend="native"), backend="native"),
        ops.inter_frame_distance(pooled.attention, "all", backend="native"),
        *regions,
        ops.hellinger_overlap(regions.weights, "text", backend="native"),
        ops.temporal_pool(regions.overlap[..., None].expand(2, 3, 7), regions.features, backend="native"),
        hard.positive_distance,
        hard.negative_distance,
    ]
    gradients = torch.autograd.grad(sum(y.square().sum() for y in differentiable), (x, logits, rows))
    features, gallery = rows.detach()[:9], rows.detach()[9:]
    nearest = ops.top_k(features, gallery, 15, backend="native")
    sparse = ops.k_reciprocal(features, gallery[:60], backend="native")
    found = [
        *differentiable,
        *gradients,
        hard.positive_index,
        hard.negative_index,
        *nearest,
        sparse.rows(0, 9),
        *ops.jaccard_graph(features, 3, 2, backend="native"),
    ]
    return [each.detach() for each in found]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(map(torch.equal, a, b))


def test_threads_of_python_call_at_once():
    wanted = [results(seed) for seed in range(3)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        wrong.extend(seed for _ in range(5) if not same(results(seed), wanted[seed]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_threads_of_python_go_on_during_a_call():
    x, ticks, done = torch.ones(2**24), [0], threading.Event()

    def tick() -> None:
        while not done.wait(1e-4):
            ticks[0] += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)  # nobody is asked to give the interpreter up
    ticker = threading.Thread(target=tick)
    try:
        ticker.start()
        while not ticks[0]:
            done.wait(1e-3)
        before = ticks[0]
        for _ in range(20):
            native.read_probe(x.data_ptr(), len(x), 1)
        assert ticks[0] > before
    finally:
        done.set()
        ticker.join()
        sys.setswitchinterval(interval)


DIGEST = """
import runpy, sys
runpy.run_path(sys.argv[2])
module = runpy.run_path(sys.argv[1])
print(module["digest_of"](module["results"](0)))
"""


def digest_of(tensors: list[Tensor]) -> str:
    return hashlib.sha256(b"".join(each.numpy().tobytes() for each in tensors)).hexdigest()


def test_bits_do_not_depend_on_the_number_of_threads():
    digest = subprocess.run(
        [sys.executable, "-c", DIGEST, __file__, str(Path(__file__).parents[1] / "conftest.py")],
        env={**os.environ, "OMP_NUM_THREADS": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    before = torch.get_num_threads()
    try:
        wanted = results(0)
        for threads in (1, 2, 3, 7, 64):
            torch.set_num_threads(threads)
            assert same(results(0), wanted), threads
    finally:
        torch.set_num_threads(before)
    assert digest.stdout.split() == [digest_of(wanted)]


# The threads of OpenMP are gone in a forked process, and a region of several would wait for them.
FORK = """
import os, runpy, signal, sys, torch
module = runpy.run_path(sys.argv[1])
torch.set_num_threads(3)
wanted = module["results"](0)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if module["same"](module["results"](0), wanted) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_computes_the_same():
    result = subprocess.run(
        [sys.executable, "-c", FORK, __file__], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr


# In a process of its own: autograd refuses to run in a fork of a process in which it has started threads, as
# other tests may have done.
WORKERS = """
import runpy, sys, torch
from torch.utils.data import DataLoader, Dataset
module = runpy.run_path(sys.argv[1])

class Computed(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return torch.cat([each.flatten().double() for each in module["results"](index)])

data = Computed()
torch.set_num_threads(2)
wanted = [data[index] for index in range(len(data))]
loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
sys.exit(0 if module["same"](list(loader), wanted) else 1)
"""


def test_workers_of_a_data_loader_compute_after_their_parent_did():
    result = subprocess.run(
        [sys.executable, "-c", WORKERS, __file__], capture_output=True, text=True, check=False, timeout=240
    )
    assert result.returncode == 0, result.stderr


SUB_INTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
problem = interpreters.run_string(interpreters.create(), "import vreid_ext")
if problem:
    raise RuntimeError(problem)
"""


def test_a_sub_interpreter_is_refused():
    result = subprocess.run(
        [sys.executable, "-c", SUB_INTERPRETER], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert "vreid_ext: expected the main interpreter" in result.stderr
