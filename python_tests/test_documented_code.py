"""The code of the README, the guides and the reference runs.

Python blocks, and shell blocks marked "run", run in the order of the page in an empty folder. Of Python
blocks marked "not run", the imports run.
"""

import ast
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from vreid_ext import cli
from vreid_ext.data import registry as datasets
from vreid_ext.models import registry as models

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(python|sh run)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [
    pytest.param(page.name, blocks, id=page.relative_to(ROOT).as_posix())
    for page in FILES
    if (blocks := BLOCK.findall(page.read_text(encoding="utf-8")))
]
# Files that a page starts with.
SHARED = Path(os.environ.get("VREID_SHARED_DATA", ROOT.parent / "shared" / "data"))
NEEDS = {"quickstart_video.md": SHARED / "vtest" / "vtest.avi"}


@pytest.mark.parametrize(("page", "blocks"), PAGES)
def test_the_blocks_of_a_page_run_one_after_the_other(page, blocks, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for registry in (datasets._datasets, models._models):  # what a page registers is not for other tests
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    if (needed := NEEDS.get(page)) is not None:
        if not needed.exists():
            pytest.skip(f"needs {needed.name} of the shared data")
        Path(needed.name).symlink_to(needed)
    torch.manual_seed(0)
    names = {"__name__": "documentation"}
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, "documentation", "exec"), names)
        else:
            run_commands(block, monkeypatch)


def run_commands(block, monkeypatch):
    """Run the lines of a shell block, which call `vreid`, in this process."""
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            assert words[0] == "vreid", line
            monkeypatch.setattr(sys, "argv", words)
            assert exit_code() == 0, line


def exit_code():
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize("page", FILES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_imports_of_other_blocks_exist(page):
    for block in re.findall(r"```python not run\n(.*?)```", page.read_text(), re.DOTALL):
        imports = [each for each in ast.parse(block).body if isinstance(each, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page.name, "exec"), {})


def test_there_is_something_to_run():
    assert len(PAGES) >= 15
