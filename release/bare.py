"""Run tests of the installed package without the checkout, a compiler, CUDA or other programs.

    python release/bare.py [FILES OR FOLDERS OF python_tests]

The tests run in a temporary folder that has only python_tests, conftest.py and pyproject.toml. PATH has only
the folder of this Python.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = [
    "test_import.py", "test_packaging.py", "test_default_dtype.py", "test_options.py", "ops", "nn", "losses",
    "metrics", "features", "backends/test_addresses.py", "backends/test_native.py",
    "backends/test_native_memory.py", "backends/test_table.py",
]  # fmt: skip


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        shutil.copytree(ROOT / "python_tests", Path(temporary, "python_tests"))
        for name in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, temporary)
        tests = [f"python_tests/{name}" for name in sys.argv[1:] or TESTS]
        environment = os.environ | {"PATH": str(Path(sys.executable).parent)}
        command = [sys.executable, "-m", "pytest", "-q", "-rs", *tests]
        return subprocess.run(command, cwd=temporary, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
