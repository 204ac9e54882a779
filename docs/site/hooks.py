"""Hooks of MkDocs: the site is built from the files as they are, whose links also work in the repository.

- README.md is the first page; CHANGELOG.md, CONTRIBUTING.md and SECURITY.md are pages, too.
- Files outside docs/ that a page links to, such as tests and rows of benchmarks, are copied to `files/`.
- Names of public functions and classes in code style link to the reference.
"""

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))  # for griffe_formulas

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {"README.md": "index.md", **{f"{name}.md": f"{name.lower()}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")}}
_LINK = re.compile(r"(\]\()([^)\s#]+)")
_FENCED = re.compile(r"^( *```.*?^ *```)$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"(?<![\[`])`((?:\w+\.)*\w+)`(?!`|\]\[)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    sources = {file.src_uri: file.content_string for file in files.documentation_pages()}
    linked = {target for page, text in sources.items() for target in map(_Links(page).target, _links(text))}
    for target in sorted(filter(None, linked)):
        if target.startswith("files/"):
            path = ROOT / target.removeprefix("files/")
            files.append(File.generated(config, target, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    links = _Links(page.file.src_uri)
    parts = _FENCED.split(markdown)
    for number in range(0, len(parts), 2):
        text = _LINK.sub(lambda found: found[1] + links.rewritten(found[2]), parts[number])
        parts[number] = linked(text)
    # "```python not run" and the like say what the tests do with a block.
    return re.sub(r"^( *```\w+) .*$", r"\1", "".join(parts), flags=re.MULTILINE)


class _Links:
    """Links of a page, relative to its place in the site instead of its place in the repository."""

    def __init__(self, page: str) -> None:
        source = next((name for name, place in PAGES.items() if place == page), f"docs/{page}")
        self.folder, self.place = (ROOT / source).parent, os.path.dirname(page)

    def target(self, link: str) -> str | None:
        """The file of the site that a link leads to; None for the web and for anchors."""
        if re.match(r"[a-z]+:|#", link):
            return None
        path = Path(os.path.normpath(self.folder / link))
        name = path.relative_to(ROOT).as_posix()
        if path.is_relative_to(DOCS):
            return path.relative_to(DOCS).as_posix()
        return PAGES.get(name, f"files/{name}")

    def rewritten(self, link: str) -> str:
        target = self.target(link)
        return link if target is None else os.path.relpath(target, self.place or ".").replace(os.sep, "/")


def _links(text: str) -> list[str]:
    return [found[2] for found in _LINK.finditer(_FENCED.sub("", text))]


@cache
def documented() -> dict[str, str]:
    """Short and full names of everything in the reference -> full name."""
    found: dict[str, list[str]] = {}
    for page in (DOCS / "reference").glob("*.md"):
        for full in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            parts = full.split(".")
            for first in range(len(parts)):
                found.setdefault(".".join(parts[first:]), []).append(full)
    return {name: full[0] for name, full in found.items() if len(full) == 1}


def linked(text: str) -> str:
    """Turn names in code style into links to the reference.

    A name without a dot is linked only if it looks like that of a function or class: `sta_pool`, `STAPool`.
    """

    def link(found: re.Match[str]) -> str:
        name = found[1]
        full = documented().get(name) if re.search(r"\.|_|[a-z][A-Z]|[A-Z]{2}", name) else None
        return found[0] if full is None else f"[`{name}`][{full}]"

    return _NAME.sub(link, text)
