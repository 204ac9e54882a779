import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def simt() -> Path:
    """The folder of the CUDA kernels built for the host: a module `_cuda` and the program `simt_probes`."""
    pybind11 = pytest.importorskip("pybind11")
    build = ROOT / "build" / "simt"
    configure = [
        "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", "-DVREID_MODULE=_simt",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]  # fmt: skip
    for command in (configure, ["cmake", "--build", str(build), "--parallel", "2"]):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return build


@pytest.fixture(scope="session")
def address_sanitizer() -> dict[str, str]:
    """The environment of a process in which AddressSanitizer's runtime is the allocator."""
    found = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        for name in ("libasan.so", "libstdc++.so")
    ]
    if not all(Path(each.strip()).is_absolute() for each in found):
        pytest.skip("needs GCC's AddressSanitizer")
    return {"LD_PRELOAD": ":".join(map(str.strip, found)), "ASAN_OPTIONS": "detect_leaks=0"}
