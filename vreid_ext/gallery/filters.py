"""The filter language of the gallery, such as `camera != 3 and time between 2026-11-27T08:00Z and ...`.

    filter      alternatives of terms: `and` binds tighter than `or`, `not` tighter than `and`; parentheses
    term        FIELD = VALUE, also != < <= > >= (text: only = and !=)
                FIELD [not] in (VALUE, ...)
                FIELD [not] between VALUE and VALUE     both ends included
                FIELD is [not] unknown
    FIELD       name, person, camera: text; frames: a number; start, end, added: times; time: see below
    VALUE       a word, or text in single or double quotes, in which a doubled quote is one; times are
                ISO 8601 with a zone

A tracklet lasts from `start` to `end`. A comparison with `time` holds if it holds for a moment of the
tracklet: `time between A and B` selects the tracklets that overlap the interval.

A comparison with an unknown value does not hold, and neither does its negation.

`parse` returns a tree without `not`, in terms of the stored columns, where an unknown value is "" or 0 or
`times.UNKNOWN`. A store translates its four types, and passes all values as parameters or typed literals.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from vreid_ext.gallery.times import UNKNOWN, microseconds

Column = Literal["name", "person", "camera", "start", "end", "frames", "added"]
Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Value = str | int


@dataclass(frozen=True, slots=True)
class Compare:
    column: Column
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class In:
    column: Column
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Condition", ...]


Condition = Compare | In | And | Or

_NEGATED: dict[Operator, Operator] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_OPERATORS: dict[str, Operator] = {"==": "=", "<>": "!=", **{each: each for each in _NEGATED}}
_KEYWORDS = {"and", "or", "not", "in", "between", "is", "unknown"}
_TOKEN = re.compile(
    r"\s*(?:(?P<quoted>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|(?P<sign><=|>=|!=|<>|==|[=<>(),])|(?P<word>[^\s'\"()<>=!,]+))"
)


class _Field(NamedTuple):
    """Attributes:
    kind: of the values.
    column: None for `time`, which is two columns.
    known: holds if the value is known.
    """

    kind: Literal["text", "number", "time"]
    column: Column | None
    known: Condition


def _column(kind: Literal["text", "number", "time"], column: Column) -> _Field:
    unknown: Value = "" if kind == "text" else 0 if kind == "number" else UNKNOWN
    return _Field(kind, column, Compare(column, "!=", unknown))


FIELDS = {
    "name": _column("text", "name"),
    "person": _column("text", "person"),
    "camera": _column("text", "camera"),
    "time": _Field("time", None, Compare("start", "!=", UNKNOWN)),
    "start": _column("time", "start"),
    "end": _column("time", "end"),
    "frames": _column("number", "frames"),
    "added": _column("time", "added"),
}


def parse(text: str) -> Condition:
    """The condition of a filter.

    Raises:
        ValueError: the filter has an error; the message has its position and, for a field, similar names.
    """
    if not isinstance(text, str):
        raise TypeError(f"where: expected text, got {type(text).__name__}")
    parser = _Parser(text)
    try:
        condition = parser.either(negated=False)
    except RecursionError:
        raise ValueError("where: expected fewer nested parentheses") from None
    if parser.token.kind != "end":
        raise parser.expected("`and`, `or` or the end")
    return condition


class _Token(NamedTuple):
    kind: Literal["quoted", "sign", "word", "end"]
    text: str
    position: int


class _Parser:
    """Recursive descent. `negated` is passed down, so the result has no negations."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0

    @property
    def token(self) -> _Token:
        return self._tokens[self._next]

    def either(self, *, negated: bool) -> Condition:
        parts = [self._all(negated=negated)]
        while self._accept("or"):
            parts.append(self._all(negated=negated))
        return _joined(And if negated else Or, parts)

    def expected(self, what: str, hint: str = "") -> ValueError:
        got = "the end" if self.token.kind == "end" else repr(self.token.text)
        return ValueError(
            f"where: expected {what} at character {self.token.position + 1}, got {got:.60}{hint}"
        )

    def _all(self, *, negated: bool) -> Condition:
        parts = [self._one(negated=negated)]
        while self._accept("and"):
            parts.append(self._one(negated=negated))
        return _joined(Or if negated else And, parts)

    def _one(self, *, negated: bool) -> Condition:
        if self._accept("not"):
            return self._one(negated=not negated)
        if self._accept("("):
            condition = self.either(negated=negated)
            self._require(")")
            return condition
        return self._term(negated)

    def _term(self, negated: bool) -> Condition:
        field = self._field()
        if self._accept("is"):
            negated ^= self._accept("not")
            self._require("unknown")
            return field.known if negated else _complement(field.known)
        negated ^= self._accept("not")
        if self._accept("in"):
            self._require("(")
            values = [self._value(field)]
            while self._accept(","):
                values.append(self._value(field))
            self._require(")")
            found = _joined(Or, [_compare(field, "=", value) for value in values])
            if field.column is not None and len(values) > 1:
                found = In(field.column, tuple(values))
        elif self._accept("between"):
            position = self.token
            low = self._value(field)
            self._require("and")
            high = self._value(field)
            if not (isinstance(low, int) and isinstance(high, int) and low <= high):
                raise ValueError(
                    "where: expected two numbers or times in ascending order after `between` at character "
                    f"{position.position + 1}"
                )
            found = And((_compare(field, ">=", low), _compare(field, "<=", high)))
        else:
            if self.token.kind != "sign" or self.token.text not in _OPERATORS:
                raise self.expected("an operator (= != < <= > >= in between is)")
            operator = _OPERATORS[self._take().text]
            if field.kind == "text" and operator not in ("=", "!="):
                raise ValueError(f"where: expected = or != for text, got {operator}")
            negated ^= operator == "!="
            found = _compare(field, "=" if operator == "!=" else operator, self._value(field))
        return _joined(And, [field.known, _complement(found) if negated else found])

    def _field(self) -> _Field:
        name = self.token.text.lower()
        if self.token.kind == "word" and name in FIELDS:
            self._take()
            return FIELDS[name]
        near = get_close_matches(name, FIELDS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise self.expected(f"a field ({', '.join(FIELDS)})", hint)

    def _value(self, field: _Field) -> Value:
        token = self.token
        if token.kind in ("sign", "end") or (token.kind == "word" and token.text.lower() in _KEYWORDS):
            raise self.expected("a value")
        text = token.text
        if field.kind == "number":
            if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
                raise self.expected("a number")
        elif field.kind == "text" and not text:
            raise self.expected("text that is not empty (`is unknown` finds unknown values)")
        self._take()
        if field.kind == "number":
            return int(text)
        return text if field.kind == "text" else microseconds("where", text)

    def _accept(self, word: str) -> bool:
        found = self.token.kind != "quoted" and self.token.text.lower() == word
        if found:
            self._take()
        return found

    def _require(self, word: str) -> None:
        if not self._accept(word):
            raise self.expected(f"`{word}`")

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]


def _tokens(text: str) -> list[_Token]:
    tokens, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            at = len(text) - len(text[position:].lstrip())
            raise ValueError(
                f"where: expected a field, operator or value at character {at + 1}, got {text[at:]!r:.40}"
            )
        kind: Any = match.lastgroup
        part = match[kind]
        if kind == "quoted":
            part = part[1:-1].replace(part[0] * 2, part[0])
        tokens.append(_Token(kind, part, match.start(kind)))
        position = match.end()
    return [*tokens, _Token("end", "", len(text))]


def _compare(field: _Field, operator: Operator, value: Value) -> Condition:
    if field.column is not None:
        return Compare(field.column, operator, value)
    if operator == "=":
        return And((Compare("start", "<=", value), Compare("end", ">=", value)))
    return Compare("start" if operator in ("<", "<=") else "end", operator, value)


def _complement(condition: Condition) -> Condition:
    match condition:
        case Compare(column, operator, value):
            return Compare(column, _NEGATED[operator], value)
        case In(column, values):
            return And(tuple(Compare(column, "!=", value) for value in values))
        case And(parts):
            return Or(tuple(map(_complement, parts)))
        case Or(parts):
            return And(tuple(map(_complement, parts)))


def _joined(kind: Callable[[tuple[Condition, ...]], Condition], parts: Sequence[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else kind(tuple(parts))
