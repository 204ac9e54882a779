"""`nox` checks format, lint and types; `nox -s versions` runs the tests with all supported torch and Python.

One of them: `nox -s "versions-3.12(torch='2.14')" -- -x python_tests/ops`. Its environment takes about 6 GB
and is removed when the tests have passed.
"""

import os
import shutil
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
TORCHES = ["2.11", "2.12", "2.13", "2.14", "newest"]

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint"]


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, clang-format and mypy; mypy takes the types of torch and others from the active environment."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    native = [str(path) for path in Path("csrc").rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    session.run("clang-format", "--dry-run", "--Werror", *native)
    active = str(shutil.which("python3"))
    session.run(active, "-c", "import torch", external=True)  # without torch mypy reports something else
    session.run("mypy", "--python-executable", active, "vreid_ext")


def _wheels(session: nox.Session) -> Path:
    return session.cache_dir / f"wheels-{session.python}"


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Build the wheel for a Python. It needs no torch, so one wheel serves all versions of torch."""
    shutil.rmtree(_wheels(session), ignore_errors=True)
    command = ["python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(_wheels(session)), "."]
    session.run(*command, env={"VREID_CUDA": "0"})


@nox.session(python=PYTHONS, requires=["wheel-{python}"])
@nox.parametrize("torch", TORCHES)
def versions(session: nox.Session, torch: str) -> None:
    """The test suite with one version of torch, and the torchvision and Triton that belong to it."""
    (built,) = _wheels(session).glob("*.whl")
    # A constraint in the user's configuration of pip is meant for other environments than these.
    release = "torch" if torch == "newest" else f"torch=={torch}.*"
    session.install(f"{built}[test]", release, env={"PIP_CONSTRAINT": os.devnull})
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs)
    shutil.rmtree(session.virtualenv.location)
