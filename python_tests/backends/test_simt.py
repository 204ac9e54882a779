"""The runtime for CUDA kernels on the host (csrc/testing/simt) reports the mistakes in simt_probes.cu."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Probe = Callable[..., list[str]]


@pytest.fixture
def probe(simt: Path) -> Probe:
    """Runs a kernel of simt_probes.cu; returns the sum of its output and the status of the launch."""

    def run(name: str, **environment: str) -> list[str]:
        command = [str(simt / "simt_probes"), name]
        result = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=60
        )
        return result.stdout.strip().split(" ", 1)

    return run


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("neighbours", 2 * 255 * 128),
        ("rounds", 512 * 3),
        ("shuffles", 512),
        ("sixteen bytes", 256),
        ("copies", 128 * (1 + 2 + 3 + 0)),
        ("largest", 511),
        ("exchange", 2 * (1 + 2 + 3 + 0) * 2),
        ("own cluster", 2 * 8),
        ("rows of threads", 64 * (0 + 1 + 2 + 3)),
    ],
)
@pytest.mark.parametrize("order", ["0", "1", "2"])
def test_correct_kernels_run_in_any_order(probe, name, total, order):
    assert probe(name, VREID_SIMT_ORDER=order) == [str(total), "cudaSuccess"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("neighbours without a barrier", "shared memory that the block has not written"),
        ("rounds without a barrier", "in shared memory by thread"),
        ("divergent barrier", "barrier reached by 100 of the block's 256 threads"),
        ("two barriers", "barrier reached by 100 of the block's 256 threads"),
        ("early exit", "barrier reached by 255 of the block's 256 threads"),
        ("absent lane", "__shfl_xor_sync: expected all lanes of mask ffffffff, got some"),
        ("lane outside its mask", "lane 16 is not in its own mask 0000ffff"),
        ("source outside the mask", "a shuffle reads lane 16, which is not in its mask 0000ffff"),
        ("sixteen bytes off their place", "an access of 16 bytes is not aligned to its size, by thread 0"),
        ("unwritten", "thread 255 of block 0 reads shared memory that the block has not written"),
        (
            "blocks share a result",
            "two writes in global memory by thread 0 of block 0 and thread 0 of block 1",
        ),
        ("copies without a wait", "read of shared memory by thread 0 of block 0 before a cp.async to it has"),
        ("write before a copy has arrived", "write of shared memory by thread 0 of block 0 before a cp"),
        ("largest and a read", "read and write in global memory by thread 0 of block 0 and thread 1"),
        ("count", "write and read in global memory by thread 0 of block 0 and thread 1"),
        ("exchange without a barrier", "in global memory by thread 0 of block"),
        ("other cluster", "in global memory by thread 0 of block"),
        ("absent block", "cluster barrier reached by 3 of the cluster's 4 blocks"),
        ("absent thread", "barrier reached by 255 of the block's 256 threads"),
        ("shared before a cluster barrier", "reads shared memory that the block has not written"),
        ("three blocks", "launch: expected clusters of 1 to 8 blocks that divide the grid, got 3 of 8"),
    ],
)
def test_mistakes_are_reported(probe, name, message):
    assert message in probe(name)[1]


def test_races_show_in_any_order(probe):
    for order in range(5):
        message = probe("rounds without a barrier", VREID_SIMT_ORDER=str(order))[1]
        assert "with no barrier between" in message


def test_a_write_past_the_end_is_reported(probe, address_sanitizer):
    message = probe("past the end", **address_sanitizer)[1]
    assert message.startswith("AddressSanitizer: write of 4 bytes outside every allocation, by thread 255")
    assert probe("neighbours", **address_sanitizer)[1] == "cudaSuccess"


def test_the_order_of_threads_can_be_changed(probe):
    messages = {probe("count", VREID_SIMT_ORDER=str(order))[1] for order in range(6)}
    assert len(messages) > 2
