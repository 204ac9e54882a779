"""Extension of Griffe, which reads the docstrings for the site: renders their formulas, links their names."""

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))

from formulas import block
from links import linked

_INDENTED = re.compile(r"(?:(?<=\n\n)|\A) {4}\S.*(?:\n|\Z)(?: {4}.*(?:\n|\Z))*")


class Formulas(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = linked(_INDENTED.sub(_rendered, obj.docstring.value))


def _rendered(found: re.Match[str]) -> str:
    html = block(re.sub(r"^ {4}", "", found[0], flags=re.MULTILINE))
    return found[0] if html is None else f"{html}\n"
