"""`nox` checks format, lint and types; `nox -l` lists the other sessions. The workflows call them too.

`nox -s versions` runs the tests with all supported torch and Python. To run one combination:
`nox -s "versions-3.12(torch='2.14')" -- -x python_tests/ops`. Its environment takes
about 6 GB and is removed after the tests have passed.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
TORCHES = ["2.11", "2.12", "2.13", "2.14", "newest"]
DIST = Path("dist").resolve()
# Ignore constraints in the user's pip configuration, which may pin another version of torch.
UNCONSTRAINED = {"PIP_CONSTRAINT": os.devnull}

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint"]


@nox.session
def lint(session: nox.Session) -> None:
    """Run ruff, clang-format and mypy. mypy reads torch and other packages of the active environment."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    native = [str(path) for path in Path("csrc").rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    session.run("clang-format", "--dry-run", "--Werror", *native)
    session.run("mypy", "--python-executable", _with_torch(session), "vreid_ext")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in build/site, without warnings. It reads the sources and does not need torch."""
    session.install(*nox.project.dependency_groups(PROJECT, "docs"))
    session.run("mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "docs/site/check.py", "build/site")


def _with_torch(session: nox.Session) -> str:
    """The active Python if it has torch, without which mypy reports wrong errors; otherwise the session's."""
    active = shutil.which("python3")
    if active and subprocess.run([active, "-c", "import torch"], capture_output=True).returncode == 0:
        return active
    session.install(".[train]", env={"VREID_CUDA": "0"})
    return str(session.bin) + "/python"


@nox.session
def sdist(session: nox.Session) -> None:
    """Build the source archive in dist/ and check it. On a tag, check that it names this version."""
    session.install(*nox.project.dependency_groups(PROJECT, "release"))
    for old in DIST.glob("*.tar.gz"):
        old.unlink()
    session.run("python", "-m", "build", "--sdist", "--outdir", str(DIST))
    (built,) = DIST.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(built))
    tag = os.environ["GITHUB_REF_NAME"] if os.environ.get("GITHUB_REF_TYPE") == "tag" else None
    if tag is not None and built.name != f"vreid_ext-{tag.removeprefix('v')}.tar.gz":
        session.error(f"expected the tag of {built.name}, got {tag}")


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Build a wheel for this machine, or with `-- --arch aarch64` one for ARM, in dist/ and check it.

    CUDA kernels are built for all architectures, with nvcc from PyPI. VREID_CUDA_ARCHS=90 and VREID_CUDA=0
    build less.
    """
    session.install(*nox.project.dependency_groups(PROJECT, "release"))
    session.run("python", "release/wheel.py", "--out", str(DIST), *session.posargs)


@nox.session
def wheels(session: nox.Session) -> None:
    """Build the wheels of a release in the containers of manylinux (needs Docker), in dist/."""
    session.install(*nox.project.dependency_groups(PROJECT, "release"))
    session.run("cibuildwheel", "--platform", "linux", "--output-dir", str(DIST), *session.posargs)


@nox.session(python=PYTHONS)
def bare(session: nox.Session) -> None:
    """Install the wheel in dist/ and run tests without the checkout, a compiler or other programs."""
    session.install(f"{_built(session)}[test]", env=UNCONSTRAINED)
    session.run("python", "release/bare.py", *session.posargs)


@nox.session
def hub(session: nox.Session) -> None:
    """Build the package of the Triton kernels for the kernels hub in dist/hub and load it with `kernels`."""
    session.install(*nox.project.dependency_groups(PROJECT, "hub"), env=UNCONSTRAINED)
    session.run("python", "release/hub.py", "--out", str(DIST / "hub"))
    session.run("python", "release/hub.py", "--check", str(DIST / "hub"), env={"TRITON_INTERPRET": "1"})


@nox.session(python=PYTHONS, requires=["wheel-{python}"])
@nox.parametrize("torch", TORCHES)
def versions(session: nox.Session, torch: str) -> None:
    """Run the tests with one version of torch and the matching versions of torchvision and Triton."""
    release = "torch" if torch == "newest" else f"torch=={torch}.*"
    session.install(f"{_built(session)}[test]", release, env=UNCONSTRAINED)
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs)
    shutil.rmtree(session.virtualenv.location)


def _built(session: nox.Session) -> Path:
    """The wheel in dist/ for this machine and the session's Python."""
    tag = f"cp{str(session.python).replace('.', '')}"
    found = sorted(DIST.glob(f"*-{tag}-*_{platform.machine()}.whl"), key=lambda path: path.stat().st_mtime)
    if not found:
        session.error(
            f"dist: expected a wheel for {tag}, got none; `nox -s wheel-{session.python}` builds it"
        )
    return found[-1]
