"""`sta_pool` makes no copy of the feature map: peak extra memory stays under a tenth of it."""

import subprocess
import sys

import pytest

MEASURE = """
import itertools, re, torch
from pathlib import Path
from vreid_ext import ops

def status(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

for dtype, layout in itertools.product((torch.float32, torch.bfloat16), ("contiguous", "channels_last")):
    x = torch.rand(16, 4, 16, 8, 2048).to(dtype).movedim(-1, 2)
    if layout == "contiguous":
        x = x.contiguous()
    ops.sta_pool(x[:1], backend="native")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status("VmRSS")
    result = ops.sta_pool(x, backend="native")
    print(dtype, layout, (status("VmHWM") - before) / (x.numel() * x.itemsize))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_extra_memory():
    output = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.rpartition(" ") for line in output.splitlines()]
    shares = {name: float(share) for name, _, share in rows}
    assert len(shares) == 4
    # Block sums are kept in float32: K/L of a float32 map, twice that share of a half-precision one.
    assert max(shares.values()) < 0.1, shares
