"""Promises of bits, ranks and precision hold whatever torch's products do (unfriendly_blas/)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import vreid_ext  # noqa: F401  which brings the products, where they are to come

UNFRIENDLY = "unfriendly_blas" in sys.modules
TESTS = Path(__file__).parent
# What uses products, or promises bits, ranks or a precision.
OPS = [f"ops/test_{name}.py" for name in ("mining", "part_metric", "ranking", "region", "rerank")]
OTHERS = ["backends/test_native.py", "backends/test_native_threads.py", "features", "losses", "metrics"]
# These start processes, which takes longest, and promise no bits.
LEFT_OUT = "two_processes", "a_lost_process", "memory_stays", "without_the_package"


def run(files: list[str], seconds: int, *options: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    path = os.pathsep.join([str(TESTS / "unfriendly_blas"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}
    result = subprocess.run(
        [*command, *(str(TESTS / file) for file in files)],
        env=environment,
        timeout=seconds,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


@pytest.mark.skipif(UNFRIENDLY, reason="this is the process it starts")
@pytest.mark.parametrize("files", [["test_unfriendly_blas.py", *OPS], OTHERS], ids=["ops", "others"])
def test_promises_hold(files):
    run(files, 580, "-k", " and ".join(f"not {name}" for name in LEFT_OUT))


@pytest.mark.slow
@pytest.mark.skipif(UNFRIENDLY, reason="this is the process it starts")
def test_everything_holds():
    run(["."], 7200)


@pytest.mark.skipif(not UNFRIENDLY, reason="asks about the process that test_promises_hold starts")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_product_is_left_to_torch(dtype):
    """Each has other bits with another number of threads, the same bits again, and the error of a sum."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    a, b, rows, vector = draw(3, 40, 500), draw(3, 500, 30), draw(40, 500), draw(500)
    c, images, weights = draw(3, 40, 30), draw(6, 300, 5, 5), draw(8, 300, 3, 3)

    def empty(like):
        return torch.empty(0, dtype=like.dtype)

    products = {
        "mm": lambda a, b, c: a[0] @ b[0],
        "mm, out": lambda a, b, c: torch.mm(a[0], b[0], out=empty(a)),
        "bmm": lambda a, b, c: a @ b,
        "bmm, out": lambda a, b, c: torch.bmm(a, b, out=empty(a)),
        "mv": lambda a, b, c: a[0] @ vector.to(a.dtype),
        "dot": lambda a, b, c: torch.stack([row @ column for row, column in zip(a[0], b[0].T)]),
        "addmm": lambda a, b, c: torch.addmm(c[0], a[0], b[0], beta=0.5, alpha=2),
        "addmm, in place": lambda a, b, c: c[0].clone().addmm_(a[0], b[0]),
        "baddbmm": lambda a, b, c: torch.baddbmm(c, a, b),
        "baddbmm, in place": lambda a, b, c: c.clone().baddbmm_(a, b, alpha=-1),
        "addbmm": lambda a, b, c: torch.addbmm(c[0], a, b),
        "addmv": lambda a, b, c: torch.addmv(c[0, :, 0], a[0], b[0, :, 0]),
        "einsum": lambda a, b, c: torch.einsum("nij,njk->ik", a, b),
        "linear": lambda a, b, c: F.linear(a, b[0].T, c[0, 0]),
        "cdist": lambda a, b, c: torch.cdist(a, b.mT, compute_mode="use_mm_for_euclid_dist"),
        "matmul, out": lambda a, b, c: torch.matmul(a, b[0], out=empty(a)),
        "convolution": lambda a, b, c: F.conv2d(images.to(a.dtype), weights.to(a.dtype)),
    }
    before = torch.get_num_threads()
    try:
        for name, product in products.items():
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(product(a, b, c))
                assert torch.equal(product(a, b, c), results[-1]), name
            assert not all(torch.equal(each, results[0]) for each in results), name
            if dtype == torch.float32:
                exact = product(a.double(), b.double(), c.double())
                error = max((each - exact).abs().max() for each in results)
                assert error < 4e-6 * exact.abs().max(), (name, error)
    finally:
        torch.set_num_threads(before)
    square = rows @ rows.T
    assert not torch.equal(square, square.T)
    assert not torch.equal((rows @ rows[:9].T)[:20], rows[:20] @ rows[:9].T)
    assert not torch.equal((rows @ rows[:9].T)[5:25], rows[5:25] @ rows[:9].T)
