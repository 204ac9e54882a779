"""Links in the documentation lead to files and headings that are there; the web is not asked."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)


def links(text: str) -> list[str]:
    return [inline or reference for inline, reference in _LINK.findall(_CODE.sub("", text))]


def anchors(text: str) -> set[str]:
    """What GitHub names the headings: lower case, no punctuation, hyphens for blanks."""
    headings = re.findall(
        r"^#+\s+(.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    missing = []
    for link in links(page.read_text(encoding="utf-8")):
        if re.match(r"https?://[\w.-]+", link):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            missing.append(link)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c\n[x](#a-b-c) [y](#d) [z](gone.md)\n[r]: lost.png\n`[code](no)`\n[w](https://e.org)\n"
    )
    assert broken(page) == ["#d", "gone.md", "lost.png"]
