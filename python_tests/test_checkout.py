"""`pytest` and `python -m pytest` in a checkout take the installed package, or say that there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vreid_ext

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TEST = f"""
import vreid_ext

def test_package():
    assert vreid_ext.__file__ == {vreid_ext.__file__!r}
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A source folder in which nothing is built."""
    package = tmp_path / "vreid_ext"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "test_package.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\npythonpath = more\n")
    shutil.copy(CONFTEST, tmp_path)
    return tmp_path


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | variables
    return subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "command", [("-m", "pytest", "-n", "1"), ("-c", "import pytest, sys; sys.exit(pytest.main())")]
)
def test_the_installed_package_is_tested(checkout, command):
    done = run(checkout, sys.executable, *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_package_without_native_module_is_refused(checkout):
    done = run(checkout, sys.executable, "-m", "pytest", PYTHONPATH=str(checkout))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    state = f"the native module is not built in {checkout / 'vreid_ext'}"
    assert done.stderr == f"ERROR: {state}: run pip install '.[test]' (add -e to use the source folder)\n\n"


def test_a_missing_package_is_named(checkout):
    code = "import importlib.util as u, pytest, sys; u.find_spec = lambda name: None; sys.exit(pytest.main())"
    done = run(checkout, sys.executable, "-c", code)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: vreid_ext is not installed: run pip install '.[test]'" in done.stderr
