"""`nox` checks format, lint and types; `nox -s docs` builds the site; `nox -s versions` runs the tests with
all supported torch and Python.

To run one combination: `nox -s "versions-3.12(torch='2.14')" -- -x python_tests/ops`. Its environment takes
about 6 GB and is removed after the tests have passed.
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
    """Run ruff, clang-format and mypy. mypy uses torch and other packages of the active environment."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    native = [str(path) for path in Path("csrc").rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    session.run("clang-format", "--dry-run", "--Werror", *native)
    active = str(shutil.which("python3"))
    session.run(active, "-c", "import torch", external=True)  # without torch, mypy reports wrong errors
    session.run("mypy", "--python-executable", active, "vreid_ext")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in build/site, without warnings. It reads the sources and does not need torch."""
    session.install(*nox.project.dependency_groups(PROJECT, "docs"))
    session.run("mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "docs/site/check.py", "build/site")


def _wheels(session: nox.Session) -> Path:
    return session.cache_dir / f"wheels-{session.python}"


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Build the wheel for a Python version. It does not depend on the version of torch."""
    shutil.rmtree(_wheels(session), ignore_errors=True)
    command = ["python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(_wheels(session)), "."]
    session.run(*command, env={"VREID_CUDA": "0"})


@nox.session(python=PYTHONS, requires=["wheel-{python}"])
@nox.parametrize("torch", TORCHES)
def versions(session: nox.Session, torch: str) -> None:
    """Run the tests with one version of torch and the matching versions of torchvision and Triton."""
    (built,) = _wheels(session).glob("*.whl")
    # Ignore constraints in the user's pip configuration, which may pin another version of torch.
    release = "torch" if torch == "newest" else f"torch=={torch}.*"
    session.install(f"{built}[test]", release, env={"PIP_CONSTRAINT": os.devnull})
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs)
    shutil.rmtree(session.virtualenv.location)
