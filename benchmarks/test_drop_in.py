"""The examples of docs/drop_in.md: the original code, with only the import changed, and with our API."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "drop_in.md").read_text()
EXAMPLES = [
    pytest.param(heading, block, id=f"{number}")
    for number, (heading, block) in enumerate(
        (section.partition("\n")[0], block)
        for section in PAGE.split("\n## ")[1:]
        for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    )
]


@pytest.mark.parametrize(("heading", "block"), EXAMPLES)
def test_example(heading, block, side_by_side):
    pytest.importorskip("pyppbox_torchreid")
    pytest.importorskip("pytorch_metric_learning")
    names = {"__name__": "documentation"}
    exec(compile(block, "docs/drop_in.md", "exec"), names)
    forms = {"before": "before", "between": "import changed", "after": "ours"}
    side_by_side(
        heading, {label: names[form] for form, label in forms.items() if form in names}, group="drop-in"
    )
