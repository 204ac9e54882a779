"""Checks the built site: it loads nothing from elsewhere, and formulas are rendered.

python docs/site/check.py build/site
"""

import re
import sys
from pathlib import Path

_LOADS = re.compile(
    r"""<(?:script|img|iframe|source|link)\b(?![^>]*rel="?(?:canonical|alternate|prev|next)\b)
        [^>]*?\s(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""",
    re.VERBOSE,
)
_IMPORTS = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")
_FORMULAS = 40  # at least


def loaded_from_elsewhere(site: Path) -> list[str]:
    """Scripts, styles, pictures and fonts with an address in the web, one line for each."""
    return [
        f"{file.relative_to(site)}: {address}"
        for pattern, suffix in ((_LOADS, "html"), (_IMPORTS, "css"))
        for file in sorted(site.rglob(f"*.{suffix}"))
        for address in pattern.findall(file.read_text(encoding="utf-8"))
    ]


def main() -> int:
    site = Path(sys.argv[1])
    problems = loaded_from_elsewhere(site)
    formulas = sum(
        page.read_text(encoding="utf-8").count("<math") for page in (site / "reference").glob("*.html")
    )
    if formulas < _FORMULAS:
        problems.append(f"reference: expected at least {_FORMULAS} formulas, got {formulas}")
    print("\n".join(problems) or f"{site}: nothing is loaded from elsewhere; {formulas} formulas")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
