"""Install nvcc and a static CUDA runtime from packages, in a folder that can be `CUDA_HOME`.

    python release/cuda.py FOLDER

The versions are those of the dependency group `cuda` in pyproject.toml.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def install(folder: Path, *options: str) -> Path:
    """Install the toolkit in `folder`, unless it is there, and return `folder`.

    Args:
        options: of pip, such as a platform other than this machine's.
    """
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["cuda"]
    complete = folder / "packages.txt"
    if complete.exists() and complete.read_text().splitlines() == packages:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as target:
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, *options]
        subprocess.run([*command, *packages], check=True)
        Path(target, "nvidia", "cu13").rename(folder)
    (folder / "lib64").symlink_to("lib")  # where nvcc looks for the runtime
    complete.write_text("\n".join(packages) + "\n")
    return folder


if __name__ == "__main__":
    print(install(Path(sys.argv[1]).resolve()))
