"""Builds the native modules with CMake and ninja; everything else is in pyproject.toml.

VREID_CUDA=auto|0|1   build vreid_ext._cuda: if nvcc is found (default), never, or always (error without nvcc)
VREID_CUDA_ARCHS      architectures in the syntax of CMake, e.g. "90" or "80;90", or "release": those of the
                      wheels, in CMakeLists.txt. Default: this machine's GPUs, or "release" if it has none
CMAKE_BUILD_PARALLEL_LEVEL   number of parallel compile jobs (default: one per core, and per 2 GiB of memory)
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).parent
CACHED_SETTINGS = (
    "CMAKE_TOOLCHAIN_FILE", "CXX", "CXXFLAGS", "LDFLAGS", "CUDACXX", "CUDAFLAGS", "CUDAHOSTCXX"
)  # fmt: skip


def find_nvcc() -> str | None:
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if home and (found := shutil.which("nvcc", path=str(Path(home, "bin")))):
            return found
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def cuda_architectures() -> str | None:
    """VREID_CUDA_ARCHS, or those of this machine's GPUs of 8.0 and newer; None: those in CMakeLists.txt."""
    if archs := os.environ.get("VREID_CUDA_ARCHS"):
        return None if archs == "release" else archs
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return None  # no GPU, or no driver
    found = {int(each.replace(".", "")) for each in answer if re.fullmatch(r"\d+\.\d", each)}
    return ";".join(str(arch) for arch in sorted(found) if arch >= 80) or None


def default_jobs() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // 2**31))


def extensions() -> list[Extension]:
    modules = [Extension("vreid_ext._native", [])]
    cuda = os.environ.get("VREID_CUDA", "auto")
    if cuda not in ("auto", "0", "1"):
        raise SystemExit(f"VREID_CUDA: expected auto, 0 or 1, got {cuda!r}")
    # Checked here because VREID_CUDA=auto ignores errors of CMake, such as the one for a wrong architecture.
    archs = os.environ.get("VREID_CUDA_ARCHS", "")
    if archs and not re.fullmatch(r"release|all|all-major|native|(;?\d+[af]?(-real|-virtual)?)+", archs):
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
        archs, nvcc = (cuda_architectures(), find_nvcc()) if module == "_cuda" else (None, None)
        settings = [module, sys.implementation.cache_tag, archs, nvcc, *map(os.environ.get, CACHED_SETTINGS)]
        build = ROOT / "build" / f"{module}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}"
        # pip builds in a temporary environment, which no longer exists at the next build in this folder. So
        # pass its paths explicitly: CMake then uses the new ones and ninja compiles only what has changed.
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DVREID_MODULE={module}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DPython_INCLUDE_DIR={sysconfig.get_paths()['include']}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPYTHON_MODULE_EXTENSION={output.name.removeprefix(module)}",  # differs if cross-compiled
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output.parent}",
        ]  # fmt: skip
        if nvcc is not None:
            configure.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
            if archs is not None:
                configure.append(f"-DCMAKE_CUDA_ARCHITECTURES={archs}")
            print(
                f"CUDA kernels: compiling with {nvcc} for the architectures {archs or 'of a release'}. "
                "VREID_CUDA_ARCHS=90 compiles for one architecture, VREID_CUDA=0 skips the CUDA kernels.",
                flush=True,
            )
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(default_jobs())
        try:
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", str(build), "--parallel", jobs], check=True)
        except subprocess.CalledProcessError as error:
            raise CompileError(f"building {ext.name} failed: {error}") from error


setup(ext_modules=extensions(), cmdclass={"build_ext": CMakeBuild})
