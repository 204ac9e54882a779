"""The source is formatted, lint-free and well typed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ["vreid_ext", "python_tests", "benchmarks", "setup.py"]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", *SOURCES],
        ["ruff", "format", "--check", *SOURCES],
        ["mypy", "vreid_ext"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_python_is_clean(command):
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_native_code_is_formatted():
    sources = [
        str(path) for path in (ROOT / "csrc").rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"}
    ]
    assert sources
    program = shutil.which("clang-format", path=str(Path(sys.executable).parent)) or "clang-format"
    result = subprocess.run(
        [program, "--dry-run", "--Werror", *sources], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
