"""Names of files and folders: order, spelling, and what can be a folder's name."""

import os
import re
import unicodedata
from pathlib import Path


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Sorts file names by the numbers in them: 2.jpg before 10.jpg; equal numbers by text."""
    parts: list[str | int] = list(re.split(r"(\d+)", os.path.splitext(name)[0]))
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def nfc(name: str) -> str:
    """The name with composed accents, so that two spellings of it are equal; macOS writes them decomposed."""
    return unicodedata.normalize("NFC", name)


def is_folder_name(name: object) -> bool:
    """Whether `name` can be one folder's visible name: no path, not hidden, what file systems take."""
    if not isinstance(name, str) or Path(name).name != name or name.startswith("."):
        return False
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return 0 < len(encoded) < 256 and b"\0" not in encoded
