"""The native module itself: instruction sets, threads, and what it refuses. Its ops: ops/test_sta.py."""

import os
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import torch

from vreid_ext import ops

native = pytest.importorskip("vreid_ext._native", reason="vreid_ext._native is not built")

ISAS = ["baseline", "avx2", "avx512"]

# Every op forward and backward, all layouts and dtypes, against the reference; odd sizes so that every
# vector width has a remainder. The maps differ clearly from frame to frame, so that no choice is a tie.
COMPARISON = """
import itertools, torch
from vreid_ext import ops

def run(backend, dtype, last):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 37, 6, 7, generator=generator).relu().to(dtype)
    if last:
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    x.requires_grad_()
    pooled, scores, attention = ops.sta_pool(x, 3, backend=backend)
    results = [pooled, scores, attention, ops.attention_map(x, "l2", "l2", backend=backend),
               ops.fuse(x, ops.block_scores(attention, 3, backend=backend), backend=backend),
               ops.inter_frame_distance(attention, "all", backend=backend)]
    logits = torch.randn(2, 3, 7, 42, generator=generator).requires_grad_()
    pool = ops.region_pool(logits, x, backend=backend)
    results += [*pool, ops.hellinger_overlap(pool.weights, "text", backend=backend),
                ops.temporal_pool(pool.overlap[..., None].expand(2, 3, 7), pool.features, backend=backend),
                ops.part_distance(*(side for clip in (0, 1) for side in (
                    pool.features[clip], logits[clip, :, :, 0].sigmoid())), backend=backend)]
    upstream = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in results]
    return [*results, *torch.autograd.grad(results, (x, logits), upstream)]

torch.set_num_threads(2)
dtypes = torch.float32, torch.float64, torch.bfloat16, torch.float16
for dtype, last in itertools.product(dtypes, (False, True)):
    tolerance = {4: 2e-5, 8: 1e-12, 2: 4e-2}[dtype.itemsize]
    for got, wanted in zip(run("native", dtype, last), run("reference", dtype, last), strict=True):
        scale = wanted.double().abs().max()
        assert scale > 0
        assert (got.double() - wanted.double()).abs().max() <= tolerance * scale, (dtype, last)
"""

# The mining ops: one strip and several, all metrics and dtypes, sizes that no vector divides.
MINING = """
import itertools, torch
from vreid_ext import ops

def run(backend, n, metric, dtype, with_ref):
    generator = torch.Generator().manual_seed(n)
    x, ref = (torch.randn(m, 37, generator=generator).to(dtype).requires_grad_() for m in (n, n + 5))
    labels, ref_labels = (torch.randint(9, (len(each),), generator=generator) for each in (x, ref))
    others = {"ref": ref, "ref_labels": ref_labels} if with_ref else {}
    hard = ops.batch_hard(x, labels, metric=metric, backend=backend, **others)
    identity = ops.identity_hard(x, labels, metric=metric, backend=backend)
    gradients = torch.autograd.grad(hard[0].sum() - 2 * hard[1].sum(), [x, ref] if with_ref else [x])
    return [*hard, *identity, *gradients]

torch.set_num_threads(2)
dtypes = torch.float32, torch.float64, torch.bfloat16, torch.float16
for case in itertools.product((30, 301), ("euclidean", "squared", "cosine"), dtypes, (False, True)):
    tolerance = {4: 2e-5, 8: 1e-12, 2: 4e-2}[case[2].itemsize]
    for got, wanted in zip(run("native", *case), run("reference", *case), strict=True):
        scale = wanted.double().abs().max()
        assert scale > 0
        assert (got.double() - wanted.double()).abs().max() <= tolerance * scale, case
"""

# Gradients so large that they are written past the caches.
LARGE = """
import itertools, torch
from vreid_ext import ops

torch.manual_seed(0)
dtypes = torch.float32, torch.float64, torch.bfloat16, torch.float16
for dtype, last in itertools.product(dtypes, (False, True)):
    # With float64 maps, a gradient of float32 logits could be rounded to either of two neighbours.
    x, logits = torch.randn(2, 4, 1024, 32, 16).to(dtype), torch.randn(2, 4, 3, 512)
    logits = logits.to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    assert x.nbytes >= 2**23
    tolerance = {4: 1e-4, 8: 1e-12, 2: 4e-2}[dtype.itemsize]
    if last:
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    x.requires_grad_()
    results = []
    for backend in ("native", "reference"):
        features = ops.region_pool(logits, x, backend=backend).features
        gradients = torch.autograd.grad(features.double().square().sum(), (x, logits))
        pooled = ops.sta_pool(x, 4, backend=backend).pooled
        results.append((*gradients, *torch.autograd.grad(pooled.double().square().sum(), x)))
    for got, wanted in zip(*results, strict=True):
        scale = wanted.double().abs().max()
        assert scale > 0
        assert (got.double() - wanted.double()).abs().max() <= tolerance * scale, (dtype, last)
"""

# All 65536 half-precision numbers through a load, a sum over one cell and a store.
HALVES = """
import torch
from vreid_ext import ops

bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
for dtype in (torch.bfloat16, torch.float16):
    x = bits.view(dtype)
    got = ops.sta_pool(x.reshape(1, 1, -1, 1, 1), 1, backend="native").pooled[0, : len(x)]
    same = (got == x) | (got.isnan() & x.isnan())
    # A NaN among the channels leaves the max-fused half as it is: the mean of one cell of one frame.
    assert same.all(), (dtype, x[~same][:8], got[~same][:8])
"""


# Ranks, nearest and re-ranked distances; duplicates and odd sizes, so that ties and remainders occur.
RANKINGS = """
import torch
from vreid_ext import ops

generator = torch.Generator().manual_seed(0)
for dtype in (torch.float32, torch.float64):
    query, gallery = (torch.randn(n, 37, generator=generator).to(dtype) for n in (5, 1203))
    gallery[1100:1200] = gallery[:100]
    row = torch.arange(5).repeat_interleave(3)
    start, index = torch.arange(6) * 3, torch.tensor([0, 7, 1107]).repeat(5)
    tile = torch.cdist(query, gallery)
    at = tile[row, index].double()
    for metric in ("cosine", "euclidean"):
        results = []
        for backend in ("native", "reference"):
            distance = ops.pair_distances(query, gallery, row, index, metric, backend=backend)
            positives = start, index, distance
            results.append((
                ops.feature_rank_counts(query, gallery, *positives, metric=metric, backend=backend),
                ops.rank_counts(tile, start, index, at, backend=backend),
                ops.top_k(query, gallery, 40, metric, backend=backend)[1],
            ))
        assert all(map(torch.equal, *results)), (dtype, metric)
    few = gallery[:90]
    sparse, dense = (ops.k_reciprocal(query, few, backend=b).rows(0, 5) for b in ("native", "reference"))
    assert (sparse - dense).abs().max() < 1e-5
"""


def python(code: str, isa: str, *under: str) -> subprocess.CompletedProcess[str]:
    # Under valgrind one thread runs at a time: a thread that spins keeps the others waiting.
    checked = {"PYTHONMALLOC": "malloc", "OMP_WAIT_POLICY": "passive"} if under else {}
    return subprocess.run(
        [*under, sys.executable, "-c", code],
        env={**os.environ, "VREID_ISA": isa, **checked},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_gives_the_answer(isa):
    if isa not in native.build_info()["usable_isas"]:
        pytest.skip(f"this machine has no {isa}")
    forced = f"import torch\nfrom vreid_ext import _native\nassert _native.build_info()['isa'] == {isa!r}\n"
    # One process: it takes seconds to import torch.
    result = python("\n".join([forced, COMPARISON, MINING, RANKINGS, HALVES, LARGE]), isa)
    assert result.returncode == 0, result.stderr


# One number more than there are: valgrind is to find this, and nothing else.
PLANTED = """
from vreid_ext import _native
x = torch.ones(101)
_native.read_probe(x.data_ptr(), 102, 1)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_valgrind_finds_nothing(tmp_path):
    report = tmp_path / "report.xml"
    options = "--error-limit=no", "--num-callers=8", "--partial-loads-ok=no"
    valgrind = "valgrind", "--xml=yes", f"--xml-file={report}", *options
    result = python("\n".join([COMPARISON, RANKINGS, HALVES, MINING, PLANTED]), "baseline", *valgrind)
    assert result.returncode == 0, result.stderr[-4000:]
    # Errors without a frame of the module are Python's and torch's own; what lives until the end, such as
    # the module's types, is reported as a leak.
    errors = [
        f"{error.findtext('kind')} {error.findtext('what')} {error.findtext('auxwhat')}"
        for error in ElementTree.parse(report).iter("error")
        if any("/_native." in frame.findtext("obj", "") for frame in error.iter("frame"))
        and not error.findtext("kind", "").startswith("Leak")
    ]
    planted = [error for error in errors if "block of size 404" in error]
    assert planted
    assert errors == planted


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64 (package qemu-user)")
@pytest.mark.parametrize(("cpu", "isa"), [("Nehalem", "baseline"), ("Haswell", "avx2")])
def test_an_emulated_cpu_gives_the_answer(cpu, isa):
    result = python("\n".join([COMPARISON, HALVES]), isa, "qemu-x86_64", "-cpu", cpu)
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_thread_count_does_not_change_a_bit(layout):
    x = torch.randn(3, 5, 70, 8, 6).contiguous(memory_format=layout).requires_grad_()
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = ops.sta_pool(x, 4, backend="native")
            fused = ops.fuse(x, y.scores, backend="native")
            loss = sum((each * each).sum() for each in (*y, fused))
            results.append((*y, fused, *torch.autograd.grad(loss, x)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_null_address_is_an_exception():
    x_map = (0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="x: expected the address of 1 elements, got null"):
        native.sta_pool(x_map, 0, 1, *[0] * 7, 1)


def test_bad_codes_are_exceptions():
    x = torch.ones(1)
    with pytest.raises(ValueError, match="dtype: expected a code from 0 to 3, got 9"):
        native.attention_map((x.data_ptr(), 9, 1, 1, 1, 1, 1, 1, 1, 1), False, False, 0, 0, 1)
    with pytest.raises(ValueError, match="x: expected stride 1 of cells or of channels, got 2 and 2"):
        native.attention_map((x.data_ptr(), 0, 1, 1, 1, 1, 4, 4, 2, 2), False, False, 0, 0, 1)
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        native.read_probe(x.data_ptr(), 1, 0)


@pytest.mark.parametrize("size", [1, 127, 300_000])
def test_probes_read_and_copy_everything(size):
    x, y = torch.ones(size), torch.zeros(size)
    assert native.read_probe(x.data_ptr(), size, 2) == size
    native.copy_probe(x.data_ptr(), y.data_ptr(), size, 2)
    assert torch.equal(x, y)


def test_mining_refuses_what_would_crash():
    x, index = torch.ones(2, 3), torch.tensor([[0, 2]])
    rows, none = (x.data_ptr(), 0, 2, 3, 3), (0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="index: expected -1 to 1, got 2"):
        native.mined_distance(rows, none, index.data_ptr(), 1, 0, x.data_ptr(), 1)
    with pytest.raises(ValueError, match="x: expected the address of 6 elements, got null"):
        native.mined_distance((0, 0, 2, 3, 3), none, index.data_ptr(), 1, 0, x.data_ptr(), 1)
    with pytest.raises(ValueError, match="metric: expected a code from 0 to 2, got 3"):
        native.mined_distance(rows, none, index.zero_().data_ptr(), 1, 3, x.data_ptr(), 1)
    packed = (x.data_ptr(), 2, 3)
    labels, others = index.data_ptr(), (x.data_ptr(), 0, 2, 4, 4)
    with pytest.raises(ValueError, match="x: expected the address of 6 elements, got null"):
        native.batch_hard((0, 0, 2, 3, 3), none, labels, 0, 0, *[x.data_ptr()] * 3, 1)
    with pytest.raises(ValueError, match="ref: expected the dtype of x and D = 3, got D = 4"):
        native.batch_hard(rows, others, labels, labels, 0, *[x.data_ptr()] * 3, 1)
    with pytest.raises(ValueError, match="ref_labels: expected the address of 2 elements, got null"):
        native.batch_hard(rows, rows, labels, 0, 0, *[x.data_ptr()] * 3, 1)
    with pytest.raises(ValueError, match="y: expected D = 3, got 2"):
        native.products(0, packed, (x.data_ptr(), 2, 2), x.data_ptr(), 2, 1)


def test_negative_sizes_are_exceptions():
    x = torch.ones(1).data_ptr()
    with pytest.raises(ValueError, match="x: expected sizes of at least 0, got -1"):
        native.attention_map((x, 0, 1, 1, -1, 1, 1, 1, 1, 1), False, False, x, x, 1)
    with pytest.raises(ValueError, match="x: expected sizes of at least 0, got -2"):
        native.batch_hard((x, 0, 2, -2, 1), (0, 0, 0, 0, 0), x, 0, 0, x, x, x, 1)
    with pytest.raises(ValueError, match="attention: expected at least 0 elements, got -1"):
        native.block_scores(0, -1, 1, 1, 1, x, 0, x, x, 1)


@pytest.mark.parametrize(
    "wrong", [None, "1", 1.5, 2**70, [1], b"", pytest.param(object(), id="object")], ids=str
)
def test_arguments_of_other_types_are_exceptions(wrong):
    functions = [each for name, each in vars(native).items() if callable(each) and name != "build_info"]
    assert len(functions) > 30
    for function in functions:
        for count in range(20):
            with pytest.raises(TypeError):
                function(*[wrong] * count)
