"""`sta_pool` makes no copy of the feature map: peak extra memory stays under a tenth of it."""

import re
import subprocess
import sys

import pytest

MEASURE = """
import re, sys, torch
from pathlib import Path
from vreid_ext import ops

def status(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

layout, dtype = sys.argv[1], getattr(torch, sys.argv[2])
x = torch.rand(16, 4, 16, 8, 2048).to(dtype).movedim(-1, 2)
if layout == "contiguous":
    x = x.contiguous()
ops.sta_pool(x[:1], backend="native")
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
before = status("VmRSS")
result = ops.sta_pool(x, backend="native")
print((status("VmHWM") - before) / (x.numel() * x.itemsize))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_peak_extra_memory(layout, dtype):
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, layout, dtype], capture_output=True, text=True, check=True
    ).stdout
    assert re.fullmatch(r"-?[\d.e-]+", output.strip())
    # Block sums are kept in float32: K/L of a float32 map, twice that share of a half-precision one.
    assert float(output) < 0.1
