"""Products of packed rows: values, and bits that depend on D, the dtype and the instruction set alone."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

native = pytest.importorskip("vreid_ext._native", reason="vreid_ext._native is not built")
from vreid_ext.backends import signatures  # noqa: E402
from vreid_ext.backends.native import product, ranking  # noqa: E402

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def draw(n: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


def multiply(x: Tensor, y: Tensor) -> Tensor:
    return product.products(product.pack(x), product.pack(y))


def exact(x: Tensor, y: Tensor) -> Tensor:
    """x @ y.T in float64, each element from a sum of its own."""
    return (x.double()[:, None] * y.double()).sum(2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "m", "d"),
    [(1, 1, 1), (5, 7, 3), (97, 200, 129), (24, 24, 128), (33, 1, 1000), (3, 400, 17), (2, 3, 0)],
)
def test_is_the_product(n, m, d, dtype):
    x, y = draw(n, d, dtype), draw(m, d, dtype, seed=1)
    got, truth = multiply(x, y), exact(x, y)
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    # A chain of at most 128 terms, and one of at most d / 128 sums.
    bound = torch.finfo(got.dtype).eps * (128 + d / 128) * exact(x.abs(), y.abs())
    assert ((got.double() - truth).abs() <= bound).all()


@pytest.mark.parametrize("n", [0, 1, 30])
def test_sizes_of_zero(n):
    assert multiply(draw(n, 8), draw(0, 8)).shape == (n, 0)
    assert multiply(draw(0, 8), draw(n, 8)).shape == (0, n)
    assert multiply(draw(n, 0), draw(n, 0)).eq(0).all()


@pytest.mark.parametrize("layout", ["transposed", "sliced", "strided", "reversed", "expanded"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_layout_gives_the_same_bits(layout, dtype):
    x = draw(37, 75, dtype)
    same = {
        "transposed": x.T.contiguous().T,
        "sliced": torch.cat([x, x], 1)[:, 75:],
        "strided": torch.stack([x, x], 2).flatten(1)[:, ::2],
        "reversed": x.flip(0).contiguous().flip(0),
        "expanded": x,
    }[layout]
    if layout == "expanded":
        x = x[:1].repeat(37, 1)
        same = x[:1].expand(37, 75)
    y = draw(41, 75, dtype, seed=1)
    assert torch.equal(multiply(same, y), multiply(x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bits_do_not_depend_on_the_place_in_a_product(dtype):
    x, y = draw(300, 257, dtype), draw(500, 257, dtype, seed=1)
    whole = multiply(x, y)
    for top, bottom, left, right in [(0, 1, 0, 1), (17, 18, 0, 500), (3, 299, 401, 402), (100, 196, 77, 300)]:
        assert torch.equal(multiply(x[top:bottom], y[left:right]), whole[top:bottom, left:right])
    order = torch.randperm(300, generator=torch.Generator().manual_seed(2))
    assert torch.equal(multiply(x[order], y), whole[order])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_is_symmetric(dtype):
    x, y = draw(300, 700, dtype), draw(130, 700, dtype, seed=1)
    assert torch.equal(multiply(x, x), multiply(x, x).T)
    assert torch.equal(multiply(x, y), multiply(y, x).T)


@settings(max_examples=30)
@given(st.integers(1, 120), st.integers(1, 250), st.integers(1, 300), st.sampled_from([1, 2, 3, 7]))
def test_bits_do_not_depend_on_the_number_of_threads(n, m, d, threads):
    x, y, before = draw(n, d), draw(m, d, seed=1), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        wanted = multiply(x, y)
        torch.set_num_threads(threads)
        assert torch.equal(multiply(x, y), wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_bits_of_a_ranking_do_not_depend_on_the_number_of_queries(metric):
    """With few queries, threads share the gallery. The largest distances come from float32 products."""
    x, y = draw(300, 257), draw(500, 257, seed=1)

    def rank(query: Tensor) -> tuple[Tensor, ...]:
        return ranking.top_k(signatures.TopK(query, y, 5, metric, None, None, None))

    whole = rank(x)
    for first, last in [(0, 1), (17, 27), (100, 133), (3, 299)]:
        for some, every in zip(rank(x[first:last]), whole, strict=True):
            assert torch.equal(some, every[first:last])


def test_a_row_that_is_not_finite_reaches_its_own_products_alone():
    x, y = draw(50, 200), draw(60, 200, seed=1)
    wanted = multiply(x, y)
    x[7, 100], x[20, 0], y[33, 199] = torch.nan, torch.inf, -torch.inf
    got = multiply(x, y)
    assert got[7].isnan().all()
    assert not got[20].isfinite().any()
    assert not got[:, 33].isfinite().any()
    rows, columns = torch.ones(50, dtype=torch.bool), torch.ones(60, dtype=torch.bool)
    rows[[7, 20]], columns[33] = False, False
    assert torch.equal(got[rows][:, columns], wanted[rows][:, columns])


def test_scales_rows_and_squares_them():
    x, y, scale, square = draw(30, 500), draw(70, 500, seed=1), torch.rand(30) + 1, torch.empty(30)
    scaled = product.pack(x, scale, square=square)
    torch.testing.assert_close(product.products(scaled, product.pack(y)), multiply(x * scale[:, None], y))
    torch.testing.assert_close(square, (x * scale[:, None]).square().sum(1))


def test_one_long_row():
    x, y = draw(1, 100_000), draw(3, 100_000, seed=1)
    error = (multiply(x, y).double() - exact(x, y)).abs()
    assert (error <= 2.0**-24 * 100 * x.norm() * y.norm(dim=1)).all()


DIGESTS = """
import hashlib, torch
from vreid_ext.backends.native import product
for threads in (1, 3):
    torch.set_num_threads(threads)
    x = torch.arange(70 * 300).reshape(70, 300).sin()
    y = torch.arange(90 * 300).reshape(90, 300).cos()
    print(hashlib.sha256(product.products(product.pack(x), product.pack(y)).numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize("isa", native.build_info()["usable_isas"])
def test_bits_of_an_instruction_set_are_the_same_in_every_process(isa, capsys):
    digests = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        env={**os.environ, "VREID_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if isa == native.build_info()["isa"]:
        threads = torch.get_num_threads()
        exec(DIGESTS, {})
        torch.set_num_threads(threads)
        digests += capsys.readouterr().out.split()
    assert len(digests) > 1
    assert len(set(digests)) == 1
