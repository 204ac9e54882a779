"""Write the ops with their Triton kernels as a package for the Kernels Hub, and check it.

    python release/hub.py --out dist/hub
    python release/hub.py --check dist/hub

The package is a copy of the ops, of the reference and of the Triton backend. It has no compiled code, so
there is one variant for every version of Python, torch and CUDA (`torch-cuda`), and the same for the CPU
(`torch-cpu`), where the ops run on the reference or in Triton's interpreter. The library `kernels` loads a
package under a name that is unique to its content. Therefore all imports are made relative, and the
operators have that name as their namespace.
"""

import argparse
import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vreid_ext"
NAME = "vreid-ext"
VERSION = 0  # by convention of the hub, 0 is a version whose functions may still change
# What the ops import, and of the other backends the modules that say that they are not there.
FILES = [
    "_checks.py", "_observers.py", "_process.py", "precision.py", "ops/*.py", "backends/*.py",
    "backends/reference/*.py", "backends/triton/*.py", "backends/cuda/__init__.py",
    "backends/native/__init__.py",
]  # fmt: skip
LEFT_OUT = {"backends/triton/tune.py"}  # of the command `vreid tune`
INIT = '''"""Ops for video person re-identification with Triton kernels: `vreid_ext.ops` {version}."""

from . import _process  # must run before torch is imported
from . import ops
from .backends import use_backend
from .ops import *
from .ops import __all__ as _ops

__version__ = "{version}"
__all__ = [*_ops, "ops", "use_backend"]
'''
CARD = """---
library_name: kernels
license: apache-2.0
tags: [kernels]
---

# {name}

Ops for video person re-identification with Triton kernels: the pooling of STA and DRSTA, mining of hard
pairs without a distance matrix, the weighted part metric of STAL, and ranking by counting. It is
`vreid_ext.ops` {version} without the compiled kernels. `pip install vreid-ext` has the rest of the package:
CPU and CUDA kernels, layers, losses and complete systems.

```python
import torch
from kernels import get_kernel

vreid = get_kernel("REPOSITORY", version={kernel_version}, trust_remote_code=True)
maps = torch.rand(8, 4, 2048, 16, 8, device="cuda", requires_grad=True)
pooled = vreid.sta_pool(maps, 4).pooled
```

Functions: {functions}.

They have gradients, work in `torch.compile`, and accept float32, bfloat16 and float16 on NVIDIA GPUs of
compute capability 8.0 and newer. `backend="reference"` runs plain torch on every device.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, help="folder of the package; its earlier content is removed")
    action.add_argument("--check", type=Path, metavar="FOLDER", help="load the package and compare its ops")
    args = parser.parse_args()
    if args.out is None:
        check(args.check)
    else:
        write(args.out)


def write(folder: Path) -> None:
    """Write the package to `folder`."""
    if folder.exists() and not (folder / "build").is_dir():
        raise SystemExit(f"--out: expected a folder that this program wrote, got {str(folder)!r}")
    shutil.rmtree(folder, ignore_errors=True)
    files = {name: relocatable(name, (PACKAGE / name).read_text()) for name in sources()}
    files["__init__.py"] = INIT.format(version=version())
    content = hashlib.sha256(
        "\0".join(f"{name}\0{files[name]}" for name in sorted(files)).encode()
    ).hexdigest()
    for backend in ("cuda", "cpu"):
        variant = folder / "build" / f"torch-{backend}"
        for name, text in files.items():
            (variant / name).parent.mkdir(parents=True, exist_ok=True)
            (variant / name).write_text(text)
        metadata = {
            "name": NAME,
            "id": f"_{NAME.replace('-', '_')}_{backend}_{content[:7]}",
            "version": VERSION,
            "license": "apache-2.0",
            "python-depends": [],
            "backend": {"type": backend},
            "digest": {
                "algorithm": "sha256",
                "files": {name: digest(variant / name) for name in sorted(files)},
            },
        }
        (variant / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    functions = re.findall(r'"([a-z]\w+)"', (PACKAGE / "ops" / "__init__.py").read_text())
    listed = ", ".join(f"`{name}`" for name in functions)
    (folder / "README.md").write_text(
        CARD.format(name=NAME, version=version(), kernel_version=VERSION, functions=listed)
    )
    print(f"{folder}: {len(files)} files per variant, {sum(map(len, files.values())) / 1e3:.0f} kB")


def sources() -> list[str]:
    found = {str(path.relative_to(PACKAGE)) for pattern in FILES for path in PACKAGE.glob(pattern)}
    return sorted(found - LEFT_OUT)


def relocatable(name: str, text: str) -> str:
    """The text of a module with relative imports in place of those of vreid_ext."""
    dots = "." * (name.count("/") + 1)
    text = re.sub(r"(?m)^(\s*from) vreid_ext import ", rf"\1 {dots} import ", text)
    return re.sub(r"(?m)^(\s*from) vreid_ext\.", rf"\1 {dots}", text)


def version() -> str:
    found = re.search(r'(?m)^__version__ = "(.*)"', (PACKAGE / "__init__.py").read_text())
    assert found is not None
    return found[1]


def digest(path: Path) -> str:
    return base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()


def check(folder: Path) -> None:
    """Load the package with `kernels` and compare an op of each family, and gradients, with the reference."""
    import torch
    from kernels import get_local_kernel

    vreid = get_local_kernel(folder.resolve())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, 8, 4, 2, generator=generator).to(device).requires_grad_()
    rows = torch.randn(12, 16, generator=generator).to(device).requires_grad_()
    labels = torch.arange(12, device=device) % 4
    weights = torch.rand(12, 4, generator=generator).to(device)
    calls = {
        "sta_pool": lambda backend: vreid.sta_pool(maps, 2, backend=backend).pooled,
        "region_pool": lambda backend: (
            vreid.region_pool(maps[:, :, :2].flatten(3), maps, backend=backend).features
        ),
        "batch_hard_triplet": lambda backend: vreid.batch_hard_triplet(rows, labels, backend=backend),
        "part_distance": lambda backend: vreid.part_distance(
            rows.view(12, 4, 4), weights, rows.view(12, 4, 4), weights, backend=backend
        ),
    }
    for name, call in calls.items():
        results, gradients = [], []
        for backend in ("triton", "reference"):
            result = call(backend)
            results.append(result.detach())
            gradients.append(torch.autograd.grad(result.sum(), (maps, rows), allow_unused=True))
        torch.testing.assert_close(*results)
        torch.testing.assert_close(*gradients)
        print(f"{name}: as the reference")


if __name__ == "__main__":
    main()
