"""The reference has every public name, and an example that uses it on the same page."""

import importlib
import inspect
import re
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
PACKAGES = (
    "vreid_ext", "vreid_ext.ops", "vreid_ext.nn", "vreid_ext.losses", "vreid_ext.metrics", "vreid_ext.models",
    "vreid_ext.data", "vreid_ext.data.synth", "vreid_ext.data.video", "vreid_ext.engine",
    "vreid_ext.features", "vreid_ext.report",
)  # fmt: skip
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md"))}
ENTRIES = [
    (page, name) for page, text in TEXTS.items() for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)
]


def resolved(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package):
    """If this fails: add `::: PACKAGE.NAME` and an example to a page of docs/reference."""
    pytest.importorskip("torchvision")
    listed = {name.rpartition(".")[2]: resolved(name) for _, name in ENTRIES if name.startswith("vreid_ext.")}
    module = importlib.import_module(package)
    public = [
        name
        for name in module.__all__
        if not inspect.ismodule(getattr(module, name)) and not name.startswith("__")
    ]
    assert public or package == "vreid_ext"
    assert [name for name in public if name not in listed or listed[name] is not getattr(module, name)] == []


@pytest.mark.parametrize(("page", "name"), ENTRIES, ids=lambda each: each.removeprefix("vreid_ext."))
def test_an_entry_is_described_and_used_in_an_example(page, name):
    pytest.importorskip("torchvision")
    described = resolved(name)
    if inspect.isroutine(described) or inspect.isclass(described):
        assert (inspect.getdoc(described) or "").strip()
    examples = "\n".join(re.findall(r"^```python\n(.*?)^```", TEXTS[page], re.DOTALL | re.MULTILINE))
    assert re.search(rf"\b{name.rpartition('.')[2]}\b", examples)


def test_the_page_of_the_commands_is_that_of_their_help():
    """If this fails: python docs/make_commands_page.py."""
    pytest.importorskip("typer")
    page = runpy.run_path(str(ROOT / "docs" / "make_commands_page.py"))["page"]()
    assert page == TEXTS["commands.md"]
    assert "vreid init ROOT [OPTIONS]" in page


def test_an_entry_occurs_once():
    names = [name for _, name in ENTRIES]
    assert len(names) == len(set(names)) >= 100


def pages_of(nav):
    for entry in nav:
        for part in entry.values() if isinstance(entry, dict) else [entry]:
            yield from pages_of(part) if isinstance(part, list) else [part]


def test_every_page_is_in_the_navigation():
    """If this fails: add the page to `nav` in mkdocs.yml."""
    nav = list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert len(nav) == len(set(nav))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(pages - set(nav)) == []
