from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vreid_ext.gallery.filters import And, Compare, In, Or, parse
from vreid_ext.gallery.rows import Row
from vreid_ext.gallery.times import UNKNOWN, microseconds, moment

PEOPLE = ["", "A", "b c", "O'Neil", '"', "and"]
HOURS = [datetime(2026, 11, 27, hour, tzinfo=UTC) for hour in range(6)]
MOMENTS = [microseconds("time", hour) for hour in HOURS]

rows = st.builds(
    lambda name, person, camera, period, frames: Row(name, person, camera, *period, frames, MOMENTS[0], "[]"),
    st.sampled_from(PEOPLE[1:]),
    st.sampled_from(PEOPLE),
    st.sampled_from(["", "1", "2"]),
    st.one_of(
        st.just((UNKNOWN, UNKNOWN)),
        st.tuples(*[st.sampled_from(MOMENTS)] * 2).map(lambda pair: tuple(sorted(pair))),
    ),
    st.integers(0, 3),
)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


TEXT_FIELDS, TIME_FIELDS = ["name", "person", "camera"], ["start", "end", "time"]
SIGNS = ["=", "==", "!=", "<>", "<", "<=", ">", ">="]
text_terms = st.one_of(
    st.tuples(
        st.sampled_from(TEXT_FIELDS), st.sampled_from(["=", "!="]), st.sampled_from([*PEOPLE[1:], "1", "2"])
    ),
    st.tuples(
        st.sampled_from(TEXT_FIELDS),
        st.sampled_from(["in", "not in"]),
        st.lists(st.sampled_from([*PEOPLE[1:], "1"]), min_size=1, max_size=3),
    ),
)
number_terms = st.tuples(st.just("frames"), st.sampled_from(SIGNS), st.integers(0, 3))
time_terms = st.one_of(
    st.tuples(st.sampled_from(TIME_FIELDS), st.sampled_from(SIGNS), st.sampled_from(MOMENTS)),
    st.tuples(
        st.sampled_from(TIME_FIELDS),
        st.sampled_from(["between", "not between"]),
        st.tuples(*[st.sampled_from(MOMENTS)] * 2).map(sorted),
    ),
)
known_terms = st.tuples(
    st.sampled_from([*TEXT_FIELDS, *TIME_FIELDS, "frames"]), st.sampled_from(["is", "is not"]), st.none()
)
trees = st.recursive(
    st.one_of(text_terms, number_terms, time_terms, known_terms),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)
    ),
    max_leaves=6,
)


def written(tree) -> str:
    if tree[0] == "not":
        return f"not ({written(tree[1])})"
    if tree[0] in ("and", "or"):
        return f"({written(tree[1])}) {tree[0]} ({written(tree[2])})"
    field, sign, value = tree

    def one(each):
        if isinstance(each, str):
            return quoted(each)
        return str(each) if field == "frames" else str(moment(each)).replace(" ", "T")

    if value is None:
        return f"{field} {sign} unknown"
    if sign in ("in", "not in"):
        return f"{field} {sign} ({', '.join(map(one, value))})"
    if sign in ("between", "not between"):
        return f"{field} {sign} {one(value[0])} and {one(value[1])}"
    return f"{field} {sign} {one(value)}"


def kleene(tree, row):
    """True, False, or None where an unknown value decides: the logic of SQL."""
    if tree[0] == "not":
        inner = kleene(tree[1], row)
        return None if inner is None else not inner
    if tree[0] in ("and", "or"):
        sides = {kleene(tree[1], row), kleene(tree[2], row)}
        decisive = tree[0] == "or"
        return decisive if decisive in sides else None if None in sides else not decisive
    field, sign, value = tree
    if field in TIME_FIELDS:
        low, high = {"start": (row.start,) * 2, "end": (row.end,) * 2, "time": (row.start, row.end)}[field]
        known = low != UNKNOWN
    else:
        low = high = getattr(row, field)
        known = low not in ("", 0)
    if value is None:
        return known == (sign == "is not")
    if not known:
        return None
    if sign in ("in", "not in"):
        return (low in value) == (sign == "in")
    if sign in ("between", "not between"):
        return (high >= value[0] and low <= value[1]) == (sign == "between")
    return {
        "=": low <= value <= high,
        "!=": not low <= value <= high,
        "<": low < value,
        "<=": low <= value,
        ">": high > value,
        ">=": high >= value,
    }[{"==": "=", "<>": "!="}.get(sign, sign)]


def holds(condition, row) -> bool:
    match condition:
        case Compare(column, sign, value):
            mine = getattr(row, column)
            return {
                "=": mine == value, "!=": mine != value, "<": mine < value, "<=": mine <= value,
                ">": mine > value, ">=": mine >= value,
            }[sign] if isinstance(value, int) else (mine == value) == (sign == "=")  # fmt: skip
        case In(column, values):
            return getattr(row, column) in values
        case And(parts):
            return all(holds(part, row) for part in parts)
        case Or(parts):
            return any(holds(part, row) for part in parts)


@given(trees, rows)
@settings(max_examples=400)
def test_a_filter_selects_what_its_three_valued_logic_says(tree, row):
    assert holds(parse(written(tree)), row) == (kleene(tree, row) is True)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("camera != 3", "camera <> '3'"),
        ("CAMERA = 3 AND person IS unknown", 'camera = "3" and person is unknown'),
        ("camera = a or camera = b and frames > 2", "camera = a or (camera = b and frames > 2)"),
        ("not camera = a and frames > 2", "(not camera = a) and frames > 2"),
        ("start >= 2026-11-27T08:00:00+01:00", "start >= 2026-11-27T07:00Z"),
        ("name = gate-unknown0007/gate/0007", "name = 'gate-unknown0007/gate/0007'"),
        ("person in (A, B)", "person in('A','B')"),
    ],
)
def test_two_ways_to_write_a_filter(text, same):
    assert parse(text) == parse(same)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("camra = 3", r"expected a field \(name, .*\) at character 1, got 'camra'; did you mean 'camera'\?"),
        ("camera = 3 and preson = A", r"at character 16, got 'preson'; did you mean 'person'\?"),
        ("zzz = 3", r"got 'zzz'$"),
        ("time > 2026-11-27T08:00", "expected a time with a zone"),
        ("time between 2026-11-27 and 2026-11-28", "expected a time with a zone"),
        ("time > yesterday", "expected a time such as 2026"),
        ("time between 2026-11-27T09:00Z and 2026-11-27T08:00Z", "in ascending order"),
        ("camera < 3", "expected = or != for text, got <"),
        ("frames = many", "expected a number at character 10, got 'many'"),
        ("frames = -1", "expected a number"),
        ("person = ''", "expected text that is not empty"),
        ("person =", "expected a value at character 9, got the end"),
        ("person = and", "expected a value at character 10, got 'and'"),
        ("person A", "expected an operator"),
        ("person = A B", "expected `and`, `or` or the end at character 12, got 'B'"),
        ("person = A ''", "expected `and`, `or` or the end"),
        ("(person = A", r"expected `\)` at character 12, got the end"),
        ("person = 'A", "expected a field, operator or value at character 10"),
        ("person is A", "expected `unknown`"),
        ("", "expected a field .* got the end"),
        ("(" * 100_000 + "camera = 3", "fewer nested"),
        ("not " * 100_000 + "camera = 3", "fewer nested"),
    ],
)
def test_errors_of_a_filter(text, message):
    with pytest.raises(ValueError, match=rf"^where: .*{message}"):
        parse(text)


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_any_text_is_a_filter_or_an_error(text):
    try:
        parse(text)
    except ValueError as error:
        assert str(error).startswith("where: expected")  # noqa: PT017
