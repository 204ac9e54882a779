"""Build a wheel for every Linux that torch's own wheels support, on any newer Linux, and check it.

    python release/wheel.py                   # for this machine, in dist/
    python release/wheel.py --arch aarch64    # cross-compiled
    python release/wheel.py --repair WHEEL    # only the last steps, for a wheel that another tool has built

GCC compiles, and links against the symbols of an old glibc instead of this machine's. The package ziglang
has the list of symbols of every glibc; a symbol that is newer stays without a version, which is an error.
libstdc++ is linked statically. libgomp is not part of the wheel, because the kernels must share the OpenMP
runtime that torch has loaded. auditwheel checks this and sets the tag.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import cuda

ROOT = Path(__file__).resolve().parents[1]
GLIBC = "2.28"  # that of torch's wheels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arch", choices=("x86_64", "aarch64"), default=platform.machine())
    parser.add_argument("--repair", type=Path, metavar="WHEEL")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the wheel (default: dist)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        wheel = args.repair or build(args.arch, Path(temporary))
        repaired = repair(wheel, args.out.resolve())
    print(f"{repaired}: {repaired.stat().st_size / 1e6:.1f} MB")


def build(arch: str, folder: Path) -> Path:
    """Build the wheel in `folder` and return its path."""
    environment = {
        # This machine's libgomp, which is not part of the wheel, needs newer symbols.
        "LDFLAGS": f"-L{link_libraries(arch)} -static-libstdc++ -Wl,--allow-shlib-undefined",
        # Not only those of this machine's GPUs.
        "VREID_CUDA_ARCHS": os.environ.get("VREID_CUDA_ARCHS", "release"),
    }
    if arch != platform.machine():
        environment |= {
            "CMAKE_TOOLCHAIN_FILE": str(ROOT / "release" / f"{arch}.cmake"),
            "VREID_CUDA": "0",
            "SETUPTOOLS_EXT_SUFFIX": sysconfig.get_config_var("EXT_SUFFIX").replace(platform.machine(), arch),
        }
    elif os.environ.get("VREID_CUDA") != "0":
        environment |= {"VREID_CUDA": "1", "CUDA_HOME": str(cuda.install(ROOT / "build" / "cuda"))}
    for old in ROOT.glob("build/lib.*"):  # a module of another build would get into the wheel
        shutil.rmtree(old)
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--wheel-dir", str(folder)]
    command += [f"-C--build-option=--plat-name=linux_{arch}", str(ROOT)]
    subprocess.run(command, env=os.environ | environment, check=True)
    (built,) = folder.glob("*.whl")
    return built


def repair(wheel: Path, out: Path) -> Path:
    """Check the modules, set the tag of the wheel, and return its path in `out`."""
    arch = wheel.stem.rpartition("linux_")[2]
    tag = f"manylinux_{GLIBC.replace('.', '_')}_{arch}"
    pattern = f"vreid_ext-*-{wheel.stem.split('-')[2]}-*_{arch}.whl"  # of the same version of Python
    for old in out.glob(pattern):
        old.unlink()
    # auditwheel knows the tags of its own machine only; for a foreign wheel, it chooses the oldest one.
    options = ["--plat", tag if arch == platform.machine() else "auto", "--only-plat"]
    options += ["--exclude", "libgomp.so.1", "--wheel-dir", str(out)]
    subprocess.run(["auditwheel", "repair", *options, str(wheel)], check=True)
    (repaired,) = out.glob(pattern)
    check_symbols(repaired)
    # Without the libraries of this machine: auditwheel would also read what its libgomp needs.
    subprocess.run(["auditwheel", "show", "--ldpaths", "/nonexistent", str(repaired)], check=True)
    return repaired


def check_symbols(wheel: Path) -> None:
    """Check that all imported symbols have a version or are Python's; auditwheel reads only the versions."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        for name in (each for each in archive.namelist() if each.endswith(".so")):
            command = ["readelf", "--wide", "--dyn-syms", archive.extract(name, folder)]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            rows = [
                row
                for row in map(str.split, lines)
                if len(row) > 7 and row[6] == "UND" and row[4] == "GLOBAL"
            ]
            unknown = [row[7] for row in rows if "@" not in row[7] and not re.match("_?Py", row[7])]
            if unknown:
                raise SystemExit(f"{name}: expected symbols of glibc {GLIBC}, got {', '.join(unknown)}")


def link_libraries(arch: str) -> Path:
    """The symbols of glibc as shared libraries without code: the folder that has them."""
    folder = ROOT / "build" / f"glibc-{GLIBC}-{arch}"
    folder.mkdir(parents=True, exist_ok=True)

    def zig(*arguments: str | Path) -> None:
        command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-gnu.{GLIBC}", "-fPIC"]
        variables = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"), "ZIG_LOCAL_CACHE_DIR": str(folder / "zig")}
        subprocess.run([*command, *map(str, arguments)], env=os.environ | variables, check=True)

    newer = folder / "newer_glibc.o"
    zig("-O2", "-c", ROOT / "release" / "newer_glibc.c", "-o", newer)
    zig("-shared", newer, "-o", folder / "linked.so")
    libraries = {path.name.partition(".so.")[0]: [path] for path in folder.glob("zig/o/*/lib*.so.*")}
    # As with glibc itself, "libc" is also the loader and a few functions that are linked statically.
    libraries["libc"] += [*libraries["libld"], *folder.glob("zig/o/*/libc_nonshared.a"), newer]
    for name, parts in libraries.items():
        (folder / f"{name}.so").write_text(f"INPUT({' '.join(map(str, parts))})\n")
    return folder


if __name__ == "__main__":
    main()
