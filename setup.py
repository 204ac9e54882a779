"""Builds the native modules with CMake and ninja; everything else is in pyproject.toml.

VREID_CUDA=auto|0|1   build vreid_ext._cuda: where nvcc is found (default), never, or fail without it
VREID_CUDA_ARCHS      architectures as CMake takes them, e.g. "90" or "80;90"
CMAKE_BUILD_PARALLEL_LEVEL   compile jobs at a time (default: 2, so that small machines keep their memory)
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).parent


def find_nvcc() -> str | None:
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if home and (found := shutil.which("nvcc", path=str(Path(home, "bin")))):
            return found
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def extensions() -> list[Extension]:
    modules = [Extension("vreid_ext._native", [])]
    wanted = os.environ.get("VREID_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"VREID_CUDA: expected auto, 0 or 1, got {wanted!r}")
    # CMake would fail on it as well, but in auto that is taken for a CUDA toolkit that does not work.
    archs = os.environ.get("VREID_CUDA_ARCHS", "")
    if archs and not re.fullmatch(r"all|all-major|native|(;?\d+[af]?(-real|-virtual)?)+", archs):
        raise SystemExit(f'VREID_CUDA_ARCHS: expected architectures as "90" or "80;90", got {archs!r}')
    if wanted == "1" and find_nvcc() is None:
        raise SystemExit("VREID_CUDA=1: nvcc not found on PATH, in CUDA_HOME or in /usr/local/cuda")
    if wanted != "0" and find_nvcc() is not None and (ROOT / "csrc" / "bindings_cuda.cpp").exists():
        # In auto a CUDA toolkit that does not work must not take the CPU module down with it.
        modules.append(Extension("vreid_ext._cuda", [], optional=wanted == "auto"))
    return modules


class CMakeBuild(build_ext):
    """One CMake configuration per module, so that a failure in one leaves the other alone."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        module = ext.name.rpartition(".")[2]
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp, module).resolve()
        # pip builds in a temporary environment, which is gone at the next build in this folder. The paths
        # to it are given here, so that CMake finds the new ones and ninja compiles only what has changed.
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DVREID_MODULE={module}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output.parent}",
        ]  # fmt: skip
        if module == "_cuda":
            configure.append(f"-DCMAKE_CUDA_COMPILER={find_nvcc()}")
            if archs := os.environ.get("VREID_CUDA_ARCHS"):
                configure.append(f"-DCMAKE_CUDA_ARCHITECTURES={archs}")
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", "2")
        try:
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", str(build), "--parallel", jobs], check=True)
        except subprocess.CalledProcessError as error:
            raise CompileError(f"building {ext.name} failed: {error}") from error


setup(ext_modules=extensions(), cmdclass={"build_ext": CMakeBuild})
