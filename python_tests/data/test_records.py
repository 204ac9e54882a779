"""The two records: what they refuse, what they print."""

import numpy as np
import pytest
import torch

from vreid_ext import metrics
from vreid_ext.data import ClipDataset, DatasetError, PKBatchSampler, Tracklet, TrackletDataset
from vreid_ext.engine import Recipe


@pytest.mark.parametrize("key", ["pid", "camid"])
@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**20])
def test_numbers_beyond_64_bits_are_named(key, value):
    with pytest.raises(ValueError, match=rf"^{key}: expected a 64-bit integer, got -?\d+ .*'anna/1'"):
        Tracklet(("a.jpg",), **{"pid": 1, "camid": 1, "name": "anna/1"} | {key: value})


@pytest.mark.parametrize("key", ["pid", "camid"])
@pytest.mark.parametrize("value", ["cam1", None, 1.0, True])
def test_what_is_no_integer_is_named(key, value):
    with pytest.raises(TypeError, match=rf"^{key}: expected an integer, got "):
        Tracklet(("a.jpg",), **{"pid": 1, "camid": 1, "name": "anna/1"} | {key: value})


def test_paths_are_some_files():
    with pytest.raises(ValueError, match=r"^paths: expected at least one image, got none"):
        Tracklet((), 1, 1, "a")
    with pytest.raises(TypeError, match=r"^paths: expected a tuple of image files, got the string 'a\.jpg'"):
        Tracklet("a.jpg", 1, 1, "a")
    assert Tracklet(("a.jpg",), np.int32(3), np.int64(2**63 - 1), "a").pid == 3


def dataset(count=5000, **changes):
    tracklets = [
        Tracklet(tuple(f"/data/{n}/{f}.jpg" for f in range(60)), n // 10, n % 6, f"train/{n}")
        for n in range(count)
    ]
    parts = {"train": tracklets, "query": tracklets[:100], "gallery": tracklets[100:]}
    return TrackletDataset("own", "/data", **parts, protocol="own tracklets", **changes)


def test_a_set_prints_as_a_table():
    text = str(dataset(skipped=[f"train/{n}: torn" for n in range(300)], ignored=["2 hidden, such as .x"]))
    assert len(text.splitlines()) == 20
    assert "train          500       5000    300000        6" in text
    assert "protocol: own tracklets\n" in text
    assert "skipped 300 tracklets:\n  train/0: torn" in text
    assert text.endswith("  and 290 more\nignored:\n  2 hidden, such as .x")


def test_what_a_prompt_shows_is_one_line():
    data = dataset()
    assert repr(data) == "TrackletDataset('own', '/data', 5000 train, 100 query, 4900 gallery)"
    assert repr(data.train[7]) == "Tracklet('train/7', pid 0, camid 1, 60 frames from '/data/7/0.jpg')"


def test_one_name_for_two_tracklets_is_refused():
    one, other = Tracklet(("a.jpg",), 1, 1, "anna/1"), Tracklet(("b.jpg",), 1, 2, "anna/1")
    assert list(TrackletDataset("own", "", [one], [one], [one], "").by_name()) == ["anna/1"]
    with pytest.raises(DatasetError, match=r"'anna/1' for a\.jpg and for b\.jpg"):
        TrackletDataset("own", "/data", [one], [other], [], "").by_name()


def test_other_objects_print_short_too():
    tracklets = dataset().train
    clips = ClipDataset(tracklets, 8, "dense")
    assert repr(clips) == "ClipDataset(5000 tracklets, 40000 clips of 8, dense)"
    assert repr(PKBatchSampler([t.pid for t in tracklets], 8, 4)) == (
        "PKBatchSampler(62 batches of 8 x 4, 500 persons)"
    )
    result = metrics.evaluate(torch.eye(40), torch.eye(40), *[range(40)] * 3, [-1] * 40)
    assert len(repr(result)) < 200
    assert "mAP 100.0" in repr(result)
    assert str(Recipe()).startswith("name: ''\nseed: 0\ndataset:\n")


def test_classes_have_no_gaps_where_identities_have():
    train = [Tracklet((f"{pid}.jpg",), pid, 1, str(pid)) for pid in (0, 379, 7, 379)]
    data = TrackletDataset("own", "/data", train, [], [], protocol="own")
    assert data.labels == {0: 0, 7: 1, 379: 2}
    assert data.num_train_pids == 3
