"""Builds the native modules with CMake and ninja; everything else is in pyproject.toml.

VREID_CUDA=auto|0|1   build vreid_ext._cuda: if nvcc is found (default), never, or always (error without nvcc)
VREID_CUDA_ARCHS      architectures in the syntax of CMake, e.g. "90" or "80;90"
CMAKE_BUILD_PARALLEL_LEVEL   number of parallel compile jobs (default: 2, to limit the memory use)
"""

import hashlib
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
CACHED_SETTINGS = ("CXX", "CXXFLAGS", "LDFLAGS", "CUDACXX", "CUDAFLAGS", "CUDAHOSTCXX", "VREID_CUDA_ARCHS")


def find_nvcc() -> str | None:
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if home and (found := shutil.which("nvcc", path=str(Path(home, "bin")))):
            return found
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def extensions() -> list[Extension]:
    modules = [Extension("vreid_ext._native", [])]
    cuda = os.environ.get("VREID_CUDA", "auto")
    if cuda not in ("auto", "0", "1"):
        raise SystemExit(f"VREID_CUDA: expected auto, 0 or 1, got {cuda!r}")
    # Checked here because VREID_CUDA=auto ignores errors of CMake, such as the one for a wrong architecture.
    archs = os.environ.get("VREID_CUDA_ARCHS", "")
    if archs and not re.fullmatch(r"all|all-major|native|(;?\d+[af]?(-real|-virtual)?)+", archs):
        raise SystemExit(f'VREID_CUDA_ARCHS: expected architectures as "90" or "80;90", got {archs!r}')
    if cuda == "1" and find_nvcc() is None:
        raise SystemExit("VREID_CUDA: expected nvcc on PATH, in CUDA_HOME or in /usr/local/cuda, got none")
    if cuda != "0" and find_nvcc() is not None:
        # With auto, a broken CUDA toolkit must not prevent the build of the CPU module.
        modules.append(Extension("vreid_ext._cuda", [], optional=cuda == "auto"))
    return modules


class CMakeBuild(build_ext):
    """Builds each module with its own CMake configuration, so that a failure does not affect the others."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        module = ext.name.rpartition(".")[2]
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        # In the source tree, so that the next build compiles only what has changed. A folder for each
        # combination of settings, since CMake reads them only in a new folder.
        settings = [module, sys.implementation.cache_tag, *map(os.environ.get, CACHED_SETTINGS)]
        build = ROOT / "build" / f"{module}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}"
        # pip builds in a temporary environment, which no longer exists at the next build in this folder. So
        # pass its paths explicitly: CMake then uses the new ones and ninja compiles only what has changed.
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
