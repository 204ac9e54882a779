"""Large results use cached blocks, and never one that is still read."""

import sys
import threading

import numpy as np
import pytest
import torch

import vreid_ext
from vreid_ext.backends.native import memory


@pytest.fixture(autouse=True)
def _nothing_cached():
    memory.empty_cache()
    yield
    memory.empty_cache()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_looks_like_empty_like(dtype):
    x = torch.empty(2, 8, 64, 64, 256, dtype=dtype).movedim(-1, 2)
    got, expected = memory.empty_like(x), torch.empty_like(x)
    assert (got.dtype, got.shape, got.stride()) == (expected.dtype, expected.shape, expected.stride())


def test_a_freed_block_is_used_again():
    x = torch.empty(2**23 + 1)
    first = memory.empty_like(x)
    address = first.data_ptr()
    slice_of_it = first[5:7]
    del first
    second = memory.empty_like(x)
    assert second.data_ptr() != address  # the slice still reads the first block
    del slice_of_it
    third = memory.empty_like(x)
    assert third.data_ptr() == address
    assert third.data_ptr() != second.data_ptr()


def test_blocks_of_one_size_are_cached_together():
    x = torch.empty(2**20)
    both = [memory.empty_like(x) for _ in range(2)]
    addresses = {each.data_ptr() for each in both}
    both.clear()
    both = [memory.empty_like(x) for _ in range(2)]
    assert {each.data_ptr() for each in both} == addresses


def test_another_size_gets_memory_of_its_own():
    del_me = memory.empty_like(torch.empty(2**23))
    del del_me
    assert memory.empty_like(torch.empty(2**24)).nbytes == 2**26


def test_threads_never_share_a_block():
    x = torch.empty(2**23)
    wrong = []

    def work(value: int) -> None:
        for _ in range(5):
            y = memory.empty_like(x)
            y.fill_(value)
            if not (y == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_threads_cache_blocks_at_the_same_time():
    wrong = []

    def work(first: int) -> None:
        try:
            for number in range(200_000):
                memory._cache(np.empty(10 + (7 * number + first) % 13, np.uint8))
        except RuntimeError as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert 0 < len(memory._cached) <= memory._BLOCKS


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(memory, "_CAPACITY", 5 * 2**20)
    for megabytes in (1, 2, 3, 4):
        del_me = memory.empty((megabytes, 2**18), torch.float32)
        del del_me
    assert [block.nbytes for block in memory._cached.values()] == [4 * 2**20]
    del_me = memory.empty((6, 2**18), torch.float32)
    del del_me
    assert not memory._cached


def test_empty_cache_frees_the_blocks():
    del_me = memory.empty((2**20,), torch.float32)
    del del_me
    assert memory._cached
    vreid_ext.empty_cache()
    assert not memory._cached
