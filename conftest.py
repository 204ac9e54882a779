"""Makes tests and benchmarks import the installed package, not the package in the working directory."""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

import pytest

# `python -m pytest` inserts the working directory at the start of sys.path; `pytest` does not.
if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]
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
