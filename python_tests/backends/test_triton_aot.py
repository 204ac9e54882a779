"""Every kernel, compiled ahead of time as it would be launched: none may spill registers."""

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
triton_compiler = pytest.importorskip("triton.compiler")

from triton.backends.compiler import GPUTarget  # noqa: E402

from vreid_ext.backends.triton import configs, mining, part_metric, region, sta  # noqa: E402
from vreid_ext.backends.triton import sta_kernels as kernels  # noqa: E402
from vreid_ext.backends.triton.launch import launch  # noqa: E402

pytestmark = pytest.mark.skipif(kernels.INTERPRETED, reason="Triton interprets the kernels in this process")

TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int64: "i64",
    torch.uint8: "u8",
}
# (B, T, C, H, W), K. One for each tile of the table, blocks longer than a tile, ones and odd numbers
# (Triton specialises on both), and a map whose offsets need 64 bits.
PAPER = ((16, 4, 2048, 16, 8), 4)
SHAPES = [
    *(((2, 4, 256, 16, tile.BLOCK_I // 2), 8) for _, tile in configs.TABLES["planes"]),
    ((2, 3, 130, 64, 32), 1),
    ((2, 5, 65, 9, 7), 3),
    ((1, 1, 1, 1, 1), 1),
    ((4096, 8, 2048, 16, 8), 4),
]


Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


@pytest.fixture
def recorded(monkeypatch) -> list[Launch]:
    """(kernel, arguments, options) of every launch that the ops make, in place of the launch."""
    launches: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *args, **options: launches.append((self.kernel, args, options))

    for module in (sta, region, mining, part_metric):
        monkeypatch.setattr(
            module, "launch", lambda kernel, *args, **options: launch(Recorder(kernel), *args, **options)
        )
    return launches


def feature_map(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    """A map without memory."""
    b, t, c, h, w = shape
    if layout == "channels_last":
        return torch.empty(b, t, h, w, c, dtype=dtype, device="meta").permute(0, 1, 4, 2, 3)
    if layout == "strided":
        x = torch.empty(b, t, h + 1, w + 1, c, dtype=dtype, device="meta")
        return x[:, :, 1:, 1:].permute(0, 1, 4, 2, 3)
    return torch.empty(shape, dtype=dtype, device="meta")


def call(kernel: Callable[[Any], Any], *args: Any) -> Any:
    """Call a kernel with an instance of its signature."""
    return kernel(get_type_hints(kernel)["args"](*args))


def run_sta(x: Tensor, blocks: int, masked: bool) -> None:
    """The STA ops forward and backward."""
    valid = torch.empty(x.shape[:2], dtype=torch.bool, device="meta") if masked else None
    pooled, scores, attention, *saved = call(sta.sta_pool, x, valid, blocks)
    for grads in ((pooled, scores, attention), (pooled, None, None), (None, None, attention)):
        call(sta.sta_pool_backward, *grads, x, valid, scores, attention, *saved)
    for energy, normalize in itertools.product(["sum_square", "l2"], ["sum", "l2"]):
        attention, norm = call(sta.attention_map, x, energy, normalize)
        call(sta.attention_map_backward, attention, x, attention, norm, energy, normalize)
    scores, total = call(sta.block_scores, attention, valid, blocks)
    call(sta.block_scores_backward, scores, attention, valid, scores, total)
    fused, choice = call(sta.fuse, x, scores, valid)
    call(sta.fuse_backward, fused, x, scores, choice, valid)
    pairs = torch.empty(len(x), 3, 2, dtype=torch.int64, device="meta")
    call(
        sta.inter_frame_distance_backward, call(sta.inter_frame_distance, attention, pairs), attention, pairs
    )


def run_region(x: Tensor, regions: int, masked: bool) -> None:
    b, t, _, h, w = x.shape
    valid = torch.empty(b, t, dtype=torch.bool, device="meta") if masked else None
    logits = torch.empty(b, t, regions, h * w, device="meta")
    features, weights, overlap = call(region.region_pool, logits, x)
    call(region.region_pool_backward, features, weights, overlap, weights, x)
    for form in ("hellinger", "text"):
        call(region.hellinger_overlap_backward, call(region.hellinger_overlap, weights, form), weights, form)
    pooled, weights = call(region.temporal_pool, logits[..., 0], features, valid)
    call(region.temporal_pool_backward, pooled, weights, features, valid)


def run_mining(n: int, size: int, m: int | None, dtype: torch.dtype, metric: str) -> None:
    def rows(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.empty(count, dtype=torch.int64, device="meta")
        return torch.empty(count, size, dtype=dtype, device="meta"), labels

    x, labels = rows(n)
    ref, ref_labels = rows(m) if m else (None, None)
    for soft in (False, True):
        call(mining.batch_hard_triplet, x, labels, ref, ref_labels, metric, 0.3, soft)
    distance, index = call(mining.batch_hard, x, labels, ref, ref_labels, metric)
    call(mining.mined_distance, x, ref, index, metric)
    call(mining.mined_distance_backward, distance, x, ref, index, distance, metric, True, True)
    for include_self in (False, True):
        call(mining.identity_hard, x, labels, metric, include_self)


def run_part_metric(queries: int, items: int, parts: int, size: int, dtype: torch.dtype) -> None:
    def side(count: int) -> tuple[Tensor, Tensor]:
        features = torch.empty(count, parts, size, dtype=dtype, device="meta")
        return features, torch.empty(count, parts, device="meta")

    sides = *side(queries), *side(items)
    grad, distances = call(part_metric.part_distance, *sides)
    call(part_metric.part_distance_backward, grad, *sides, distances)


def specialise(kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What Triton's launcher would compile for these arguments, and the options."""
    signature, constants, attributes = {}, {}, {}
    named = dict(zip(kernel.arg_names, args, strict=False))
    named |= {name: value for name, value in options.items() if name in kernel.arg_names}
    for index, name in enumerate(kernel.arg_names):
        value = named[name]
        if isinstance(value, Tensor):
            signature[name] = f"*{TYPES[value.dtype]}"
            attributes[index,] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif value is None or value == 1 or kernel.params[index].is_constexpr:
            signature[name], constants[index,] = "constexpr", value
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[index,] = [["tt.divisibility", 16]]
    rest = {name: value for name, value in options.items() if name not in kernel.arg_names}
    return triton_compiler.ASTSource(kernel, signature, constants, attributes), rest


@pytest.fixture
def build(tmp_path, monkeypatch) -> Iterator[Callable[..., Path]]:
    """Compiles a launch for an architecture; gives the cubin, once for each distinct binary."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    numbers = itertools.count()
    built: set[str] = set()

    def compile_launch(launch: tuple[Any, ...], architecture: int) -> Path | None:
        source, options = specialise(*launch)
        key = f"{source.hash()} {sorted(options.items())}"
        if key in built:
            return None
        built.add(key)
        binary = triton_compiler.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
        path = tmp_path / f"{next(numbers)}.{source.fn.__name__}.cubin"
        path.write_bytes(binary.asm["cubin"])
        return path

    return compile_launch


def usage(cubin: Path) -> dict[str, int]:
    """Registers, and bytes of stack and local memory (spills), that a kernel needs per thread."""
    tool = shutil.which("cuobjdump") or str(
        Path(triton_compiler.__file__).parents[1] / "backends/nvidia/bin/cuobjdump"
    )
    command = [tool, "--dump-resource-usage", cubin]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", text)}


def check(build: Callable[..., Path | None], launches: list[Launch], architecture: int) -> dict[str, int]:
    """Nothing spills; gives the registers of each kernel."""
    cubins = [cubin for launch in launches if (cubin := build(launch, architecture)) is not None]
    used = {cubin.name: usage(cubin) for cubin in cubins}
    assert {name: use for name, use in used.items() if use["STACK"] or use["LOCAL"]} == {}
    return {name: use["REG"] for name, use in used.items()}


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        (torch.float32, "contiguous"),
        pytest.param(torch.bfloat16, "channels_last", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_sta_kernels_do_not_spill(build, recorded, dtype, layout):
    run_sta(feature_map(PAPER[0], dtype, layout), PAPER[1], False)
    registers = check(build, recorded, 90)
    streaming = [name for name in registers if "channel_sums" in name or "map_gradient" in name]
    assert streaming
    assert max(registers[name] for name in streaming) <= 128  # four blocks of 128 threads on an SM


CASES = pytest.mark.parametrize(
    ("dtype", "layout", "masked"),
    [
        (torch.float32, "contiguous", True),
        (torch.float32, "channels_last", False),
        (torch.bfloat16, "contiguous", False),
        (torch.bfloat16, "channels_last", True),
        (torch.float16, "contiguous", True),
        (torch.float16, "strided", True),
    ],
    ids=str,
)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
@CASES
def test_no_configuration_of_sta_spills(build, recorded, architecture, dtype, layout, masked):
    for shape, blocks in SHAPES:
        run_sta(feature_map(shape, dtype, layout), blocks, masked)
    check(build, recorded, architecture)


def test_kernels_of_regions_do_not_spill(build, recorded):
    run_region(feature_map((8, 6, 2048, 8, 4), torch.float32, "contiguous"), 6, False)
    check(build, recorded, 90)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
@CASES
def test_no_configuration_of_regions_spills(build, recorded, architecture, dtype, layout, masked):
    for shape in ((8, 6, 2048, 8, 4), (2, 5, 65, 9, 7), (1, 1, 1, 1, 1), (4096, 8, 2048, 16, 8)):
        for regions in (1, 6, 8, 9):
            run_region(feature_map(shape, dtype, layout), regions, masked)
    check(build, recorded, architecture)


@pytest.mark.parametrize("m", [None, 4096])
def test_mining_kernels_do_not_spill(build, recorded, m):
    run_mining(8192, 2048, m, torch.float32, "euclidean")
    assert any("mine" in name for name in check(build, recorded, 90))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_no_configuration_of_mining_spills(build, recorded, architecture, dtype):
    for metric in ("euclidean", "squared", "cosine"):
        for n, size, m in (
            (64, 2048, None),
            (1, 3, 1),
            (1, 3, None),
            (1, 1, 1),
            (1, 1, None),
            (1000, 33, 50),
            (2048, 512, None),
            (9000, 6144, 8192),
        ):
            run_mining(n, size, m, dtype, metric)
    run_mining(2**22, 1024, None, dtype, "cosine")  # offsets need 64 bits
    check(build, recorded, architecture)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kernels_of_the_part_metric_do_not_spill(build, recorded, dtype):
    run_part_metric(990, 2048, 6, 1024, dtype)
    check(build, recorded, 90)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_no_configuration_of_the_part_metric_spills(build, recorded, architecture, dtype):
    for shape in ((64, 64, 6, 1024), (1, 1, 1, 1), (33, 999, 3, 19), (2000, 10000, 6, 1024)):
        run_part_metric(*shape, dtype)
    check(build, recorded, architecture)


@pytest.mark.usefixtures("build")  # for its empty cache
def test_the_feature_map_is_read_and_written_sixteen_bytes_at_a_time(recorded):
    for dtype, layout in itertools.product((torch.float32, torch.bfloat16), ("contiguous", "channels_last")):
        recorded.clear()
        run_sta(feature_map(PAPER[0], dtype, layout), PAPER[1], False)
        for kernel, args, options in recorded:
            if kernel not in (kernels.channel_sums, kernels.map_gradient):
                continue
            source, options = specialise(kernel, args, options)
            text = triton_compiler.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm[
                "ptx"
            ]
            assert "ld.global.v4.b32" in text, (kernel, dtype, layout)
            assert kernel is kernels.channel_sums or "st.global.v4.b32" in text, (dtype, layout)
