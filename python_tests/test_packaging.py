"""What is built and shipped, read from the files themselves."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import vreid_ext

ROOT = Path(__file__).parents[1]
MODULES = sorted(Path(vreid_ext.__file__).parent.glob("_*.so"))

needs_binutils = pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf (binutils)")
needs_source = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")


def readelf(option: str, module: Path) -> list[str]:
    command = ["readelf", "--wide", option, str(module)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def symbols(module: Path, *, defined: bool) -> list[str]:
    rows = [line.split() for line in readelf("--dyn-syms", module)]
    return [row[7] for row in rows if len(row) > 7 and row[0][:-1].isdigit() and (row[6] != "UND") == defined]


def test_native_module_is_built():
    assert any(module.name.startswith("_native") for module in MODULES)


@needs_binutils
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_module_needs_no_torch_and_shares_the_openmp_runtime(module):
    needed = [line.split("[")[1].rstrip("]") for line in readelf("--dynamic", module) if "(NEEDED)" in line]
    system = ("libc", "libdl", "libgcc_s", "libm", "libpthread", "librt", "libstdc++")
    allowed = ("libgomp.so.1", "ld-linux", *(f"{name}.so" for name in system))
    assert needed
    assert [name for name in needed if not name.startswith(allowed)] == []
    if module.name.startswith("_native"):
        assert "libgomp.so.1" in needed


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_one_openmp_runtime_in_the_process():
    code = (
        "import torch\nfrom vreid_ext import ops\n"
        "ops.sta_pool(torch.rand(1, 2, 4, 4, 2), 2, backend='native')\n"
        "print(*sorted({line.split()[-1] for line in open('/proc/self/maps') if '.so' in line}), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = [Path(line).name for line in done.stdout.splitlines()]
    assert any(name.startswith("_native.") for name in loaded)
    assert len([name for name in loaded if re.match(r"lib(gomp|omp|iomp5)\b", name)]) == 1, loaded


@needs_binutils
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_module_uses_no_torch_symbol_and_exports_only_its_entry(module):
    undefined = symbols(module, defined=False)
    assert any(name.startswith("Py") for name in undefined)
    assert [name for name in undefined if "c10" in name or "torch" in name or "aten" in name] == []
    assert symbols(module, defined=True) == [f"PyInit_{module.name.partition('.')[0]}"]


@needs_binutils
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_module_is_hardened(module):
    segments = {line.split()[0]: line.split() for line in readelf("--segments", module) if line.strip()}
    assert segments["GNU_STACK"][-2] == "RW"  # no code on the stack
    assert "GNU_RELRO" in segments
    flags = " ".join(line for line in readelf("--dynamic", module) if "FLAGS" in line)
    assert "NOW" in flags  # all of the table of addresses is read-only once the module is loaded
    assert {"__stack_chk_fail", "__memcpy_chk"} & {
        name.partition("@")[0] for name in symbols(module, defined=False)
    }


def build(kind: str, out: Path, source: Path = ROOT) -> Path:
    options = [f"--{kind}", "--no-isolation", "--outdir", str(out), str(source)]
    command = [sys.executable, "-m", "build", *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (archive,) = out.iterdir()
    return archive


@needs_source
@pytest.mark.slow
def test_wheel_built_from_the_sdist_is_complete(tmp_path, monkeypatch):
    monkeypatch.setenv("VREID_CUDA", "0")
    sdist = build("sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "source", filter="data")
    folders = ("benchmarks", "csrc", "docs", "python_tests", "vreid_ext/recipes")
    kinds = {".cpp", ".cu", ".cuh", ".h", ".json", ".md", ".py", ".svg", ".yaml"}
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in kinds)
    sources = {str(path.relative_to(ROOT)) for path in paths}
    files = {"CITATION.cff", "CMakeLists.txt", "LICENSE", "SECURITY.md", "conftest.py", "setup.py"}
    files |= {"release/wheel.py", ".pre-commit-config.yaml", ".github/workflows/ci.yml"}
    assert sources | files | {"vreid_ext/py.typed"} <= names

    (source,) = (tmp_path / "source").iterdir()
    build("wheel", tmp_path / "first", source)
    for cache in source.glob("build/_native-*/CMakeCache.txt"):  # as left by pip's temporary environment
        cache.write_text(re.sub(r"(?m)^(CMAKE_MAKE_PROGRAM:\w+)=.*", r"\1=/gone/ninja", cache.read_text()))
    objects = {path: path.stat().st_mtime_ns for path in source.glob("build/_native-*/**/csrc/cpu/*.o")}
    wheel = build("wheel", tmp_path / "wheel", source)
    assert objects
    assert objects == {path: path.stat().st_mtime_ns for path in objects}  # nothing is compiled again
    with zipfile.ZipFile(wheel) as archive:
        contents = set(archive.namelist())
        metadata = archive.read(next(name for name in contents if name.endswith("/METADATA"))).decode()
    modules = [name for name in contents if name.endswith(".so") or ".so." in name]
    assert [name.partition(".")[0] for name in modules] == ["vreid_ext/_native"]
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "vreid_ext").rglob("*.py")}
    recipes = {str(path.relative_to(ROOT)) for path in (ROOT / "vreid_ext" / "recipes").glob("*.yaml")}
    templates = {f"vreid_ext/report/template/page.{suffix}" for suffix in ("html", "css", "js")}
    assert package | recipes | templates | {"vreid_ext/py.typed"} <= contents
    assert not any(name.startswith(("python_tests", "benchmarks", "csrc")) for name in contents)
    required = {line for line in metadata.splitlines() if line.startswith("Requires-Dist")}
    assert {line for line in required if "extra ==" not in line} == {
        "Requires-Dist: numpy",
        "Requires-Dist: torch>=2.11",
    }
