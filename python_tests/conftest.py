"""What every test and every process it starts runs under."""

import importlib.util
import os
import sys
from pathlib import Path

import hypothesis
import pytest

# A slow machine is no failure, so neither an example nor its generation has a time limit.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

# A machine that is shared, or has fewer cores than it shows, spends its time in threads that spin and wait.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A build of the native module to test in the place of the installed one (backends/test_sanitizers.py).
if _build := os.environ.get("VREID_TEST_NATIVE"):
    import torch  # noqa: F401  its OpenMP runtime comes first, as in vreid_ext.backends.native

    (_module,) = Path(_build).glob("_native.*.so")
    _spec = importlib.util.spec_from_file_location("vreid_ext._native", _module)
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["vreid_ext._native"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["vreid_ext._native"])


@pytest.fixture
def vreid(monkeypatch, capsys):
    """Run the command in this process: (exit code, output, errors)."""
    from vreid_ext import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vreid", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        else:
            code = 0
        return code, *capsys.readouterr()

    return run
