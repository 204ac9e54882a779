"""The tuples and codes that Python passes to the C++ modules, against the structs that receive them."""

import inspect
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from vreid_ext.backends import addresses

DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}


@pytest.fixture(params=["_native", "_cuda"])
def module(request) -> ModuleType:
    return pytest.importorskip(f"vreid_ext.{request.param}", reason=f"{request.param} is not built")


def named_tuples() -> dict[str, Callable[..., tuple[int, ...]]]:
    return {name: each for name, each in inspect.getmembers(addresses) if hasattr(each, "_fields")}


def test_tuples_have_the_fields_of_the_structs(module):
    ours = named_tuples()
    assert module.tuples
    assert module.tuples == {name: ours[name]._fields for name in module.tuples}


def test_every_tuple_has_a_struct():
    native = pytest.importorskip("vreid_ext._native")
    cuda = pytest.importorskip("vreid_ext._cuda")
    assert set(named_tuples()) == {*native.tuples, *cuda.tuples}


def test_codes(module):
    assert set(module.codes) == {"DType", "Metric"}
    dtypes = {DTYPES[name]: code for code, name in enumerate(module.codes["DType"])}
    assert dtypes == addresses.DTYPE_CODES
    metrics = {name: code for code, name in enumerate(module.codes["Metric"])}
    assert metrics == addresses.METRIC_CODES


@pytest.mark.parametrize(
    "wrong", [(), (0, 0), (0, 0, "1"), (0, 0, 1.0), [0, 0, 0], (0, 0, 2**63), (0, 0, None)]
)
def test_another_tuple_is_refused(wrong):
    native = pytest.importorskip("vreid_ext._native")
    with pytest.raises(TypeError, match="incompatible function arguments"):
        native.products(0, wrong, wrong, 0, 0, 1)


def test_the_views_have_the_numbers_of_their_tensors():
    x = torch.empty(2, 3, 5, 7, 11).permute(0, 1, 4, 2, 3)
    assert addresses.feature_map(x)._asdict() == {
        "data": x.data_ptr(), "dtype": 0, "B": 2, "T": 3, "C": 11, "L": 35,
        "stride_b": 1155, "stride_t": 385, "stride_c": 1, "stride_l": 11,
    }  # fmt: skip
    rows = torch.empty(3, 8, dtype=torch.float16)[:, :5]
    assert addresses.rows(rows)._asdict() == {
        "data": rows.data_ptr(), "dtype": 3, "N": 3, "D": 5, "stride": 8,
    }  # fmt: skip
