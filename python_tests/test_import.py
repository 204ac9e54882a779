"""`import vreid_ext` is cheap and needs nothing but torch and NumPy."""

import subprocess
import sys


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_brings_in_nothing_heavy():
    code = "import sys, torch; before = set(sys.modules); import vreid_ext; print(*set(sys.modules) - before)"
    heavy = {"torchvision", "scipy", "omegaconf", "typer", "rich", "matplotlib", "cv2", "PIL"}
    assert not heavy & {name.partition(".")[0] for name in python(code).split()}


def test_public_names():
    names = python("import vreid_ext as v; print([getattr(v, n) for n in v.__all__] and v.__all__)")
    assert names.strip() == str(
        ["__version__", "empty_cache", "losses", "metrics", "models", "nn", "ops", "use_backend"]
    )
