"""Formulas of docstrings as MathML.

The docstrings write formulas as plain text that is readable in `help()`, in indented blocks:

    s(n,k) = sum_{(i,j) in block k} |g_n(i,j)|          S(n,k) = s(n,k) / sum_n s(n,k)

`block` turns such a block into HTML. Browsers draw MathML themselves, so the pages need no script and no
font from elsewhere. A block without a formula, such as a layout of folders, is left as it is.
"""

import re
from html import escape
from itertools import groupby
from xml.etree.ElementTree import Element, tostring

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<quoted>"[^"]*")
    |(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)
    |(?P<word>[^\W\d_]+(?:-bar)?\d*'?\*?(?=\W|_|$))
    |(?P<sign><-|<=|>=|!=|\|\||\.\.\.|\S)""",
    re.VERBOSE,
)
_SIGNS = {"<=": "≤", ">=": "≥", "!=": "≠", "<-": "←", "-": "−", "*": "⋅", "...": "…"}
_GREEK = {"psi": "ψ", "lambda": "λ"}
_OPERATORS = ("argmax", "argmin", "exp", "ln", "log", "max", "min", "sigmoid", "softmax", "cosine")
_BELOW = ("argmax", "argmin", "max", "min", "∑")  # their index stands below them
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def block(text: str) -> str | None:
    """HTML of an indented block, or None if it contains no formula.

    A line is divided into cells by three or more blanks. Cells that are no formula are text.
    """
    rows: list[str] = []
    for line in text.splitlines():
        if line[:1].isspace() and rows:  # the continuation of a line
            rows[-1] += " " + line.strip()
        elif line.strip():
            rows.append(line.strip())
    divided = [re.split(r" {3,}", re.sub(r" {3,}= ", " = ", row)) for row in rows]
    if not any(is_formula(cell) for cells in divided for cell in cells):
        return None
    spans = ("".join(f"<span>{_cell(cell)}</span>" for cell in cells) for cells in divided)
    lines = "".join(f'<div class="row">{row}</div>' for row in spans)
    return f'<div class="formula">{lines}</div>'


def is_formula(text: str) -> bool:
    """Whether a text has more signs of mathematics than words."""
    if re.search(r"ROOT/|[{,] *\"|`|\bdef\b|@", text):
        return False
    kinds = [(kind, token) for kind, token in _tokens(text) if kind != "space"]
    words = sum(kind == "word" and _is_prose(token) for kind, token in kinds)
    signs = sum(kind == "sign" and token not in ".,:;" for kind, token in kinds)
    return signs > words and bool(re.search(r"=|<-|_|\^|\[|\|", text))


def mathml(text: str) -> str:
    """A formula as a `<math>` element."""
    math = Element("math", {"displaystyle": "true"})
    math.extend(_Parser(text).until(None))
    return tostring(math, encoding="unicode")


def _cell(text: str) -> str:
    return mathml(text) if is_formula(text) else escape(text, quote=False)


def _tokens(text: str) -> list[tuple[str, str]]:
    return [(str(found.lastgroup), found[0]) for found in _TOKEN.finditer(text)]


def _is_prose(word: str) -> bool:
    return len(word) > 1 and word.islower() and word.isalpha() and word not in (*_OPERATORS, *_GREEK)


class _Parser:
    """Reads a formula from left to right and returns a list of MathML elements."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.place = 0
        self.open_bars: list[str] = []

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else ("end", "")

    def until(self, closing: str | None) -> list[Element]:
        """Elements up to a closing bracket, which is consumed."""
        elements: list[Element] = []
        while self.place < len(self.tokens):
            kind, token = self.peek()
            if token == closing:
                self.place += 1
                break
            if kind == "space":
                self.place += 1
            elif token == "/" and elements and "space" not in (self.peek(-1)[0], self.peek(1)[0]):
                self.place += 1
                elements[-1] = _made("mfrac", elements[-1], self.scripted())
            else:
                elements.append(self.scripted())
        return _joined(elements)

    def scripted(self) -> Element:
        """An atom with its index and its power."""
        atom = self.atom()
        index = power = None
        while self.peek()[1] in ("_", "^"):
            sign = self.peek()[1]
            self.place += 1
            script = self.script(sign)
            index, power = (script, power) if sign == "_" else (index, script)
        below = atom.text in _BELOW
        if index is not None and power is not None:
            return _made("munderover" if below else "msubsup", atom, index, power)
        if index is not None:
            return _made("munder" if below else "msub", atom, index)
        return atom if power is None else _made("msup", atom, power)

    def script(self, sign: str) -> Element:
        kind, token = self.peek()
        if token == "{":
            self.place += 1
            return _made("mrow", *self.until("}"))
        if (sign, token) == ("^", "T"):
            self.place += 1
            return _leaf("mo", "⊤")
        if kind == "word" and len(token) <= 2 and token.isalpha() and token.islower():
            self.place += 1
            script = _made("mrow", *(_leaf("mi", letter) for letter in token))
        else:
            script = self.atom()
        # x_p(a), x_AN(a): the index of a hardest sample of a
        if sign == "_" and self.peek()[1] == "(" and (token in ("p", "n") or token.isupper()):
            script = _made("mrow", script, self.atom())
        return script

    def atom(self) -> Element:
        kind, token = self.peek()
        self.place += 1
        if kind == "number":
            if token == "1" and self.peek()[1] == "[":
                return _leaf("mn", "𝟏")
            digits, power, exponent = token.partition("e")
            if power:
                ten = _made("msup", _leaf("mn", "10"), _made("mrow", *_signed(exponent)))
                return ten if digits == "1" else _made("mrow", _leaf("mn", digits), _leaf("mo", "⋅"), ten)
            return _leaf("mn", token)
        if kind == "quoted":
            return _leaf("mtext", token)
        if kind == "word":
            return self.word(token)
        if token in _CLOSING:
            inner = self.until(_CLOSING[token])
            return _made("mrow", _fence(token), *inner, _fence(_CLOSING[token]))
        if token == "#" and self.peek()[1] == "{":
            return _leaf("mo", "#")
        if token in ("||", "|"):
            opening = token not in self.open_bars
            self.open_bars.append(token) if opening else self.open_bars.remove(token)
            return _fence("‖" if token == "||" else "|", "prefix" if opening else "postfix")
        if token == "." and self.peek(-2)[0] != "space" and self.peek()[0] in ("word", "end"):
            return _leaf("mo", "⋅")
        return _leaf("mo", _SIGNS.get(token, token))

    def word(self, token: str) -> Element:
        name = token.rstrip("*").rstrip("'")
        if name == "sum" and self.peek()[1] == "_":
            return _leaf("mo", "∑")
        if name == "sqrt" and self.peek()[1] == "(":
            self.place += 1
            return _made("msqrt", *self.until(")"))
        letters = name.rstrip("0123456789").removesuffix("-bar")
        if letters in _GREEK or len(letters) == 1:
            element = _leaf("mi", _GREEK.get(letters, letters))
        elif letters in _OPERATORS:
            element = _leaf("mo", letters, form="prefix", lspace="0.17em", rspace="0.17em")
        elif letters[0] == "d" and letters[1:].isupper():  # the d of dQ / dx
            element = _made("mrow", _leaf("mi", "d"), _leaf("mi", letters[1:]))
        else:
            element = _leaf("mtext", letters)
        if name.endswith("-bar"):
            element = _made("mover", element, _leaf("mo", "¯"))
        if digits := name[len(name.rstrip("0123456789")) :]:
            element = _made("msub", element, _leaf("mn", digits))
        marks = token[len(name) :].replace("'", "′").replace("*", "∗")
        return _made("msup", element, _leaf("mo", marks)) if marks else element


def _joined(elements: list[Element]) -> list[Element]:
    """Join neighbouring words, and put a space between words and symbols other than operators."""
    groups = [list(group) for _, group in groupby(elements, key=lambda each: each.tag == "mtext")]
    for place, group in enumerate(groups):
        if group[0].tag == "mtext":
            text = " ".join(str(each.text) for each in group)
            if place and groups[place - 1][-1].tag != "mo":
                text = f"\N{NO-BREAK SPACE}{text}"
            if place + 1 < len(groups) and groups[place + 1][0].tag not in ("mo", "mrow"):
                text += "\N{NO-BREAK SPACE}"
            groups[place] = [_leaf("mtext", text)]
    return [each for group in groups for each in group]


def _signed(number: str) -> list[Element]:
    return [*([_leaf("mo", "−")] if number[0] == "-" else []), _leaf("mn", number.lstrip("-"))]


def _leaf(tag: str, text: str, **attributes: str) -> Element:
    element = Element(tag, attributes)
    element.text = text
    return element


def _fence(sign: str, form: str | None = None) -> Element:
    return _leaf("mo", sign, stretchy="false", **({"form": form} if form else {}))


def _made(tag: str, *children: Element) -> Element:
    element = Element(tag)
    element.extend(children)
    return element
