"""The CPU kernels on CPUs other than this machine's: under QEMU, cross-compiled, AVX-512 emulated by AVX2.

`native_checks` (in the folder of that name) compares every kernel with its plain formula, without Python. The
preset `emulated` builds it, and the module, with csrc/testing/emulated instead of AVX-512.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

native = pytest.importorskip("vreid_ext._native", reason="vreid_ext._native is not built")

TESTS = Path(__file__).parents[1]
SYSROOT = Path("/usr/aarch64-linux-gnu")  # where Debian's packages put it

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates other CPUs on x86-64")

# QEMU's name of a CPU: the instruction sets of csrc/cpu that it has.
CPUS = {
    "Nehalem": ["baseline"],  # SSE 4.2
    "SandyBridge": ["baseline"],  # AVX without AVX2
    "Haswell": ["baseline", "avx2"],
    "EPYC-Milan": ["baseline", "avx2"],
}


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=3000
    )


def qemu(architecture: str) -> str:
    found = shutil.which(f"qemu-{architecture}")
    if found is None:
        pytest.skip(f"needs qemu-{architecture} (Debian's package qemu-user)")
    return found


def load(cpu: str, isa: str | None = None) -> subprocess.CompletedProcess[str]:
    """Load the native module on a CPU and print what it says; it needs no torch."""
    code = (
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('vreid_ext._native', {native.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(*(module.build_info()[key] for key in ('isa', 'usable_isas')))"
    )
    environment = {} if isa is None else {"VREID_ISA": isa}
    return run(qemu("x86_64"), "-cpu", cpu, sys.executable, "-c", code, **environment)


@pytest.mark.parametrize("cpu", CPUS)
def test_the_module_chooses_the_instruction_set_of_the_cpu(cpu, monkeypatch):
    monkeypatch.delenv("VREID_ISA", raising=False)
    result = load(cpu)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{CPUS[cpu][-1]} {CPUS[cpu]}"


@pytest.mark.parametrize(("cpu", "isa"), [("Nehalem", "avx2"), ("Nehalem", "avx512"), ("Haswell", "avx512")])
def test_an_instruction_set_that_the_cpu_lacks_is_an_error(cpu, isa):
    result = load(cpu, isa)
    assert result.returncode != 0
    assert "VREID_ISA" in result.stderr
    assert ", ".join(CPUS[cpu]) in result.stderr


def test_a_lower_instruction_set_can_be_chosen():
    assert load("Haswell", "baseline").stdout.startswith("baseline")


@pytest.fixture(scope="session")
def native_checks(build_preset) -> Path:
    return build_preset("emulated", "native_checks") / "native_checks"


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_kernels(native_checks, isa):
    if isa != "baseline" and "avx2" not in native.build_info()["usable_isas"]:
        pytest.skip("AVX2 and what it emulates need a CPU with AVX2")
    passed(run(native_checks, VREID_ISA=isa), isa)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["Nehalem", "Haswell"])
def test_kernels_on_another_x86(native_checks, cpu):
    isa = CPUS[cpu][-1]
    passed(run(qemu("x86_64"), "-cpu", cpu, native_checks, VREID_ISA=isa), isa)


@pytest.mark.slow
def test_kernels_on_aarch64(build_preset, monkeypatch):
    monkeypatch.delenv("VREID_ISA", raising=False)
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("needs Debian's package g++-aarch64-linux-gnu")
    emulator = qemu("aarch64")
    checks = build_preset("aarch64", "native_checks") / "native_checks"
    passed(run(emulator, "-L", SYSROOT, checks), "baseline")


def passed(result: subprocess.CompletedProcess[str], isa: str) -> None:
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-6000:]
    assert result.stdout.startswith(f"{isa} of ")
    assert result.stdout.endswith(" comparisons, 0 failures\n")


@pytest.mark.slow
def test_ops_with_emulated_avx512(build_preset):
    environment = {"VREID_TEST_NATIVE": str(build_preset("emulated")), "VREID_ISA": "avx512"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "native"]
    result = run(*command, TESTS / "ops", **environment)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-6000:]
