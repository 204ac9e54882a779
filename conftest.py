"""Makes tests and benchmarks import the installed package, not the package in the working directory."""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

import pytest

# `python -m pytest` adds the working directory to what PYTHONPATH names; `pytest` does not. A worker of
# pytest-xdist starts with the sys.path of the command. What is installed comes after the standard library.
_start = sys.path[: sys.path.index(os.path.dirname(os.__file__))]
_named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if "" in _start:  # `python -c`
    sys.path.remove("")
if _start.count(os.getcwd()) > _named.count(os.getcwd()):
    sys.path.remove(os.getcwd())
os.environ["PYTHONSAFEPATH"] = "1"  # the same for subprocesses of the tests


def pytest_configure(config):
    package = find_spec("vreid_ext")
    if package is None:
        state = "vreid_ext is not installed"
    elif PathFinder.find_spec("vreid_ext._native", package.submodule_search_locations) is None:
        state = f"the native module is not built in {os.path.dirname(package.origin)}"
    else:
        return
    raise pytest.UsageError(f"{state}: run pip install '.[test]' (add -e to use the source folder)")
