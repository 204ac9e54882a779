"""The HTML templates of the pages; all data is escaped."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def template(name: str, **filters: Callable[..., Any]) -> Any:
    """The template of a page, with additional filters."""
    loader = PackageLoader("vreid_ext.report", "template")
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    jinja.filters |= filters
    return jinja.get_template(name)
