"""Hooks of MkDocs: the site is built from the files as they are.

- README.md is the first page; CHANGELOG.md, CONTRIBUTING.md and SECURITY.md are pages, too.
- Files outside docs/ that a page links to, such as tests and rows of benchmarks, are copied to `files/`.
- Names of public functions and classes in code style link to the reference.
"""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from links import FENCED, LINK, PAGES, ROOT, Links, linked, links


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    sources = {file.src_uri: file.content_string for file in files.documentation_pages()}
    targets = {target for page, text in sources.items() for target in map(Links(page).target, links(text))}
    for target in sorted(filter(None, targets)):
        if target.startswith("files/"):
            path = ROOT / target.removeprefix("files/")
            files.append(File.generated(config, target, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    of_page = Links(page.file.src_uri)
    parts = FENCED.split(markdown)
    for number in range(0, len(parts), 2):
        text = LINK.sub(lambda found: found[1] + of_page.rewritten(found[2]), parts[number])
        parts[number] = linked(text)
    # "```python not run" and the like say what the tests do with a block.
    return re.sub(r"^( *```\w+) .*$", r"\1", "".join(parts), flags=re.MULTILINE)
