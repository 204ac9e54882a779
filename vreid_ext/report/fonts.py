"""Text in any script: selects installed fonts that have the glyphs, and escapes characters without a font."""

from collections.abc import Iterable

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from vreid_ext.data.names import nfc

NOTE = r"\u...: a character that no installed font has"


def make_readable(figure: Figure) -> None:
    r"""Make all texts of a figure drawable. They may contain names of runs, persons and tracklets.

    Math text is disabled. Accents are composed (NFC), and bytes that are not valid UTF-8 become question
    marks. Characters that the default font does not have are drawn in other installed fonts; characters that
    no font has are written as `\uXXXX`, with a note below the figure.
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
    """Return font families that cover the characters that `own` lacks, and the characters without any font.

    The families are selected greedily to keep their number small.
    """
    missing = set(characters)
    missing -= _drawn_by(findfont(FontProperties(family=list(own))), missing)
    if not missing:
        return [], missing
    # Last-resort fonts draw one box for all characters. matplotlib selects the upright font of a family.
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
    except (OSError, RuntimeError):  # deleted, or a bitmap font, which matplotlib does not support
        return set()
    return {char for char in characters if font.get_char_index(ord(char))}


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
