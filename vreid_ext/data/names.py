"""Names of files and folders: sort order, Unicode normalization and validity."""

import os
import re
import unicodedata
from pathlib import Path


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Sort key for file names: numbers compare by value (2.jpg before 10.jpg), equal numbers by text."""
    parts: list[str | int] = list(re.split(r"(\d+)", os.path.splitext(name)[0]))
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def nfc(name: str) -> str:
    """The name in Unicode form NFC (composed accents), so that names from macOS (NFD) compare equal."""
    return unicodedata.normalize("NFC", name)


def is_folder_name(name: object) -> bool:
    """Whether `name` is the name of a single visible folder that file systems can store (1 to 255 bytes)."""
    if not isinstance(name, str) or Path(name).name != name or name.startswith("."):
        return False
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:  # an unpaired surrogate
        return False
    return 0 < len(encoded) < 256 and b"\0" not in encoded
