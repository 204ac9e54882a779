"""The section "An op" of docs/extending.md, followed step by step in a copy of the package.

The models and data sets of that page run in test_documented_code.py.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import vreid_ext

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
TEXT = PAGE.read_text(encoding="utf-8")
STEPS = re.findall(r"```python (file|add) (\S+)\n(.*?)```", TEXT, re.DOTALL)
# A rendered page does not show the file name of a block, so a line above names it.
NAMED = re.findall(r"^`(\S+)`(?: \(add\))?:\n\n```python (?:file|add) (\S+)$", TEXT, re.MULTILINE)


def test_the_steps_give_an_op_that_passes_its_tests(tmp_path):
    shutil.copytree(
        Path(vreid_ext.__file__).parent, tmp_path / "vreid_ext", ignore=shutil.ignore_patterns("__pycache__")
    )
    for what, name, text in STEPS:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert path.exists() == (what == "add"), name
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    (entry,) = re.findall(r'```toml\n\[project.entry-points."(.*?)"\]\n(\w+) = "(\w+)"\n```', TEXT)
    installed = tmp_path / "my_backend-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my_backend\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[{}]\n{} = {}\n".format(*entry))
    tests = [name for _, name, _ in STEPS if name.startswith("python_tests")]
    assert len(STEPS) == len(NAMED) == 9
    assert all(shown == name for shown, name in NAMED)
    assert len(tests) == 1
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *tests],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "8 passed" in done.stdout
    listed = "from vreid_ext import backends, ops; print(ops.__file__, 'frame_mean' in backends.ops())"
    done = subprocess.run(
        [sys.executable, "-c", listed],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "vreid_ext" / "ops" / "__init__.py"), "True"]
