"""A wrong value of an environment variable is an error that names the variable and what it expects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vreid_ext import backends, cli
from vreid_ext.backends.triton import configs
from vreid_ext.engine import join_processes

ROOT = Path(__file__).parents[1]
FIRST_OP = "import torch, vreid_ext; vreid_ext.ops.attention_map(torch.zeros(1, 1, 1, 1, 1))"


def errors_of(*command: str, **variables: str) -> list[str]:
    """The lines that a failing process writes to stderr."""
    done = subprocess.run(
        [sys.executable, *command], env=os.environ | variables, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1, done
    return done.stderr.splitlines()


def error_of(*command: str, **variables: str) -> str:
    return errors_of(*command, **variables)[-1]


@pytest.mark.parametrize(
    ("value", "kind", "command"),
    [("AVX2", "ValueError", ("-c", FIRST_OP)), ("", "vreid: error", ("-m", "vreid_ext", "info"))],
    ids=["wrong case", "empty"],
)
def test_instruction_set(value, kind, command):
    usable = ", ".join(backends.load("native").build_info()["usable_isas"])
    expected = f"VREID_ISA: expected an instruction set of this CPU ({usable}), got '{value}'"
    assert error_of(*command, VREID_ISA=value) == f"{kind}: {expected}"


def test_backend():
    choices = "('auto', 'reference', 'native', 'triton', 'cuda')"
    message = f"ValueError: VREID_BACKEND: expected one of {choices}, got 'Native'"
    assert error_of("-c", "import vreid_ext", VREID_BACKEND="Native") == message


def test_backend_that_cannot_run_the_op():
    error, *reasons = errors_of("-c", FIRST_OP, VREID_BACKEND="cuda")[-1 - len(backends.names()) :]
    expected = (
        "backend: expected a backend that supports attention_map on cpu with torch.float32, got 'cuda':"
    )
    assert error == f"RuntimeError: {expected}"
    assert reasons[0] == "  reference: usable"


@pytest.mark.parametrize("value", ["", "nowhere.json"])
def test_triton_tables(monkeypatch, value):
    monkeypatch.setenv(configs.FILE_VARIABLE, value)
    with pytest.raises(ValueError, match="VREID_TRITON_TABLES: expected a file that `vreid tune` wrote, got"):
        configs.tables_of("a GPU of which nothing is kept")


def test_what_torchrun_sets(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="WORLD_SIZE: expected a number as torchrun sets it, got 'two'"):
        join_processes()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="LOCAL_WORLD_SIZE: expected a number as torchrun sets it, got None"):
        join_processes()
    monkeypatch.setenv("RANK", "first")
    monkeypatch.setattr(sys, "argv", ["vreid", "info"])
    with pytest.raises(SystemExit):
        cli.main()
    message = "vreid: error: RANK: expected a number as torchrun sets it, got 'first'\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(("variable", "value"), [("VREID_CUDA", "yes"), ("VREID_CUDA_ARCHS", "sm_90")])
def test_build(variable, value):
    if not (ROOT / "setup.py").exists():
        pytest.skip("needs the source tree")
    error = error_of("setup.py", "--name", **{variable: value})
    assert error.startswith(f"{variable}: expected ")
    assert error.endswith(f"got '{value}'")


@pytest.mark.parametrize(
    ("answer", "value", "expected"),
    [
        ("echo 9.0; echo 8.0; echo 9.0", "", "80;90"),
        ("echo 7.5; echo 12.0", "", "120"),  # the kernels need 8.0
        ("echo 7.5", "", "None"),
        ("echo '[N/A]'", "", "None"),
        ("exit 9", "", "None"),  # no driver
        ("echo 9.0", "80;120", "80;120"),
        ("echo 9.0", "release", "None"),
    ],
)
def test_cuda_kernels_are_built_for_the_gpus_of_this_machine(answer, value, expected, tmp_path):
    """None stands for the list in CMakeLists.txt."""
    if not (ROOT / "setup.py").exists():
        pytest.skip("needs the source tree")
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    code = (
        "import runpy, sys; sys.argv = ['setup.py', '--name']\n"
        "print(runpy.run_path('setup.py')['cuda_architectures']())"
    )
    variables = {"VREID_CUDA_ARCHS": value, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == [expected], done.stderr
