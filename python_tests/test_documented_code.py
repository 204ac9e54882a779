"""The Python of the README and the guides runs as it stands, but for blocks marked "not run"."""

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


def test_there_is_something_to_run():
    assert len(PAGES) >= 3
