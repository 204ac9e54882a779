"""Names in any script: installed fonts that have their glyphs, or escapes where none has."""

from collections.abc import Iterable

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from vreid_ext.data.names import nfc

NOTE = r"\u...: a character that no installed font has"


def make_readable(figure: Figure) -> None:
    r"""Prepares the texts of a figure, which are names of runs, persons and tracklets, for being drawn.

    They hold no formulas. Accents are composed, and what is no UTF-8 becomes a question mark. Characters that
    the figure's font lacks are drawn in other installed fonts; those that no font has become `\uXXXX`, and a
    note below the figure says so.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    for text in texts:
        text.set_parse_math(False)
        text.set_text(nfc(text.get_text().encode("utf-8", "replace").decode()))
    own = FontProperties().get_family()
    families, missing = families_for({char for text in texts for char in text.get_text()} - {"\n"}, own)
    for text in texts:
        text.set_text("".join(_escaped(char) if char in missing else char for char in text.get_text()))
        if families:
            text.set_fontfamily([*text.get_fontfamily(), *families])
    if missing:
        figure.supxlabel(NOTE, fontsize=7, color="#606060")


def families_for(characters: Iterable[str], own: Iterable[str]) -> tuple[list[str], set[str]]:
    """Font families beside `own` that together have the characters, few by greed; and what none has."""
    missing = set(characters)
    missing -= _drawn_by(findfont(FontProperties(family=list(own))), missing)
    if not missing:
        return [], missing
    # Fonts of last resort have one box for all characters. Of a family, matplotlib takes the upright font.
    fonts = [f for f in fontManager.ttflist if f.style == "normal" and "resort" not in f.name.lower()]
    fonts.sort(key=lambda font: (str(font.weight) not in ("400", "normal", "regular"), font.name))
    covers: dict[str, set[str]] = {}
    for font in fonts:
        if font.name not in covers:
            covers[font.name] = _drawn_by(font.fname, missing)
    chosen = []
    while best := max(covers, key=lambda name: len(covers[name] & missing), default=None):
        if not covers[best] & missing:
            break
        chosen.append(best)
        missing -= covers[best]
    return chosen, missing


def _drawn_by(file: str, characters: Iterable[str]) -> set[str]:
    try:
        font = get_font(file)
    except (OSError, RuntimeError):  # gone, or in bitmaps, which matplotlib does not draw
        return set()
    return {char for char in characters if font.get_char_index(ord(char))}


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
