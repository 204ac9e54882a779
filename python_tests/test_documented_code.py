"""The Python code of the README and the guides runs. Of blocks marked "not run", the imports run."""

import ast
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [
    pytest.param(blocks, id=page.name)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if (blocks := re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("blocks", PAGES)
def test_the_blocks_of_a_page_run_one_after_the_other(blocks, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {"__name__": "documentation"}
    for block in blocks:
        exec(compile(block, "documentation", "exec"), names)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_imports_of_other_blocks_exist(page):
    for block in re.findall(r"```python not run\n(.*?)```", page.read_text(), re.DOTALL):
        imports = [each for each in ast.parse(block).body if isinstance(each, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page.name, "exec"), {})


def test_there_is_something_to_run():
    assert len(PAGES) >= 3
