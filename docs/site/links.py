"""Links of the site. The pages are files whose links also work in the repository."""

import os
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

# Pages from outside docs/ and their names in the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}

LINK = re.compile(r"(\]\()([^)\s#]+)")
FENCED = re.compile(r"^( *```.*?^ *```)$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"(?<![\[`])`((?:\w+\.)*\w+)`(?!`|\]\[|\]\()")


class Links:
    """Links of a page, relative to its place in the site instead of its place in the repository."""

    def __init__(self, page: str) -> None:
        source = next((name for name, place in PAGES.items() if place == page), f"docs/{page}")
        self.folder, self.place = (ROOT / source).parent, os.path.dirname(page)

    def target(self, link: str) -> str | None:
        """The file of the site that a link leads to; None for the web and for anchors.

        Files outside docs/ are in `files/`.
        """
        if re.match(r"[a-z]+:|#", link):
            return None
        path = Path(os.path.normpath(self.folder / link))
        if path.is_relative_to(DOCS):
            return path.relative_to(DOCS).as_posix()
        name = path.relative_to(ROOT).as_posix()
        return PAGES.get(name, f"files/{name}")

    def rewritten(self, link: str) -> str:
        target = self.target(link)
        return link if target is None else os.path.relpath(target, self.place or ".").replace(os.sep, "/")


def links(text: str) -> list[str]:
    """The links of a page."""
    return [found[2] for found in LINK.finditer(FENCED.sub("", text))]


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
