"""Extension of Griffe, which reads the docstrings for the site: renders their formulas, links their names."""

import re
from typing import Any

import griffe
import hooks
from formulas import block

_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}\S.*(?:\n|\Z)(?:\n(?= {4}))?)+")


class Formulas(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = _INDENTED.sub(_rendered, obj.docstring.value)
            obj.docstring.value = hooks.linked(text)


def _rendered(found: re.Match[str]) -> str:
    text = re.sub(r"^ {4}", "", found[0], flags=re.MULTILINE)
    html = block(text)
    return found[0] if html is None else f"{html}\n"
