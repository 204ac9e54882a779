from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from torch import nn

from vreid_ext._options import check_options, is_text, option_types


def build(
    root,
    anything=None,
    *,
    count: int = 1,
    share: float | None = None,
    on: bool = True,
    form: Literal["a", "b"] = "a",
    file: str | Path | None = None,
    names: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    net: str | nn.Module = "",
    margin: float | Literal["soft"] = 0.3,
):
    pass


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("anything", [1, "a", None, [1], build]),
        ("count", [1, np.int64(3)]),
        ("share", [1, 0.5, None, np.float32(0.5)]),
        ("on", [True, False]),
        ("form", ["a", "z"]),  # which of them it may be the factory says
        ("file", ["a", Path("a"), None]),
        ("names", [[], ["a"], ("a", "b")]),
        ("sizes", [None, {"a": 1}]),
        ("net", ["a", nn.Identity()]),
        ("margin", [1, 0.5, "soft"]),
    ],
)
def test_values_of_the_right_type_pass(name, values):
    for value in values:
        check_options("model 'm'", build, {name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", 1.5, "int"),
        ("count", True, "int"),
        ("count", "two", "int"),
        ("share", "half", "float or None"),
        ("on", "yes", "bool"),
        ("on", 1, "bool"),
        ("form", 3, "str"),
        ("file", 7, "str or Path or None"),
        ("names", "a", "Sequence"),
        ("names", [1], "Sequence"),
        ("sizes", [1], "Mapping or None"),
        ("net", 3, "str or Module"),
        ("margin", [1], "float or str"),
        ("count", None, "int"),
    ],
)
def test_a_value_of_another_type_names_the_option(name, value, expected):
    with pytest.raises(TypeError, match=rf"^{name}: expected {expected} for model 'm', got "):
        check_options("model 'm'", build, {name: value})


def test_which_options_are_text():
    types = option_types(build)
    assert {name for name, kind in types.items() if is_text(kind)} == {"form", "file", "net"}
    assert option_types(lambda root, **options: None) is None
    assert not is_text(Any)
