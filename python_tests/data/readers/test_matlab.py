"""The matrix reader against SciPy's, and on damaged files, of which some end the interpreter in SciPy's."""

import random

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from vreid_ext.data.readers.matlab import load_matrix
from vreid_ext.data.records import DatasetError


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (0, 4), (2, 3, 2)])
def test_agrees_with_scipy(tmp_path, compressed, dtype, shape):
    path, matrix = tmp_path / "a.mat", np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    savemat(path, {"x": {"a": 1}, "table": matrix, "name": "text"}, do_compression=compressed)
    read = load_matrix(path, "table")
    np.testing.assert_array_equal(read, loadmat(path)["table"])
    assert read.shape == shape


def test_what_is_no_such_matrix_is_named(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"cell": np.array([1, "a"], dtype=object), "other": np.ones(2)})
    with pytest.raises(DatasetError, match=r"a\.mat: expected a numeric matrix 'table'"):
        load_matrix(path, "table")
    with pytest.raises(DatasetError, match="cell: expected a numeric matrix"):
        load_matrix(path, "cell")
    with pytest.raises(DatasetError, match=r"b\.mat: cannot be read"):
        load_matrix(tmp_path / "b.mat", "table")


def test_a_variable_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    savemat(tmp_path / "a.mat", {"table": np.zeros((1000, 100))}, do_compression=True)
    monkeypatch.setattr("vreid_ext.data.readers.matlab.MAX_BYTES", 10_000)
    with pytest.raises(DatasetError, match="expected a variable of at most 10000 bytes"):
        load_matrix(tmp_path / "a.mat", "table")


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_give_an_error_or_a_matrix(tmp_path, compressed):
    path = tmp_path / "a.mat"
    savemat(path, {"table": np.arange(40).reshape(10, 4)}, do_compression=compressed)
    whole, draw, errors = path.read_bytes(), random.Random(0), 0
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(draw.randrange(1, 5)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged[: draw.choice([None, draw.randrange(len(damaged))])])
        try:
            load_matrix(path, "table")
        except DatasetError:
            errors += 1
    assert 0 < errors < 2000
