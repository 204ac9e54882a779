import pytest
from torch import nn

from vreid_ext.models import build_model, model_names, register_model, registry


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.setattr(registry._models, "_factories", dict(registry._models._factories))

    @register_model("linear")
    def build(num_classes: int, width: int = 2) -> nn.Module:
        return nn.Linear(width, num_classes)

    return build


def test_builds_a_registered_model_with_its_options(linear):
    assert "linear" in model_names()
    assert build_model("linear", 3, width=4).weight.shape == (3, 4)


def test_unknown_name_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"^name: expected a model name, .*, got 'stta'; did you mean 'sta'\?"
    ):
        build_model("stta", 3)


@pytest.mark.parametrize(
    ("name", "option", "says"),
    [
        ("linear", "widht", r"'linear' \(width\), got 'widht'; did you mean 'width'"),
        ("sta", "blcoks", r"'sta' \(.*, got 'blcoks'; did you mean 'blocks'"),
        ("sta", "num_clases", r"'sta' \(pooling, .*, got 'num_clases'"),
    ],
)
def test_unknown_option_names_the_nearest(linear, name, option, says):
    with pytest.raises(ValueError, match=rf"^{option}: expected an option of model {says}"):
        build_model(name, 3, **{option: 4})


def test_options_of_a_factory_that_takes_any_are_its_own_affair(linear):
    register_model("open")(lambda num_classes, **options: linear(num_classes, options["width"]))
    assert build_model("open", 3, width=4).weight.shape == (3, 4)


def test_name_taken(linear):
    with pytest.raises(ValueError, match=r"^name: expected .*, got 'linear'"):
        register_model("linear")(linear)
