"""Every store against brute force and against each other; what persists, what is atomic, what is an error."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from killed_writer import BATCH, kill_while_adding

import vreid_ext
from vreid_ext import ops
from vreid_ext.gallery import Gallery, StoreError
from vreid_ext.gallery.stores import Location, parse_location

START = datetime(2026, 11, 27, 8, tzinfo=UTC)
STRANGE = [
    "O'Neil",
    'a "b"',
    "x; DROP TABLE vreid_tracklets; --",
    "ümlaut 人",
    r"back\slash",
    "%s {p0} $1",
    "a--b",
]


def people(count, dimensions=6, seed=0):
    """Features and facts of `count` tracklets; every fifth has no time and every third no person."""
    generator = torch.Generator().manual_seed(seed)
    names = [f"{STRANGE[i % len(STRANGE)]}/{i:05}" for i in range(count)]
    times = [None if i % 5 == 4 else START + timedelta(minutes=i) for i in range(count)]
    return torch.randn(100, dimensions, generator=generator)[:count], {
        "names": names,
        "persons": [None if i % 3 == 2 else STRANGE[i % 7] for i in range(count)],
        "cameras": [i % 4 for i in range(count)],
        "starts": times,
        "ends": [each and each + timedelta(seconds=30) for each in times],
        "frames": [1 + i % 9 for i in range(count)],
        "pictures": [[f"/pictures/{i}.jpg"] for i in range(count)],
    }


FILTERS = [
    None,
    "camera != 3 and time between 2026-11-27T08:10:00+00:00 and 2026-11-27T08:40:10+00:00",
    "person is unknown or not (camera in (1, 2) and frames >= 4)",
    """person in ('O''Neil', 'a "b"', 'x; DROP TABLE vreid_tracklets; --')""",
    r"person = 'back\slash' or person = '%s {p0} $1' or person = 'ümlaut 人'",
    "start is unknown and end is unknown and added > 2026-01-01T00:00Z",
    "camera = 9",
]


@pytest.mark.parametrize("where", FILTERS)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_search_is_that_of_all_distances(location, metric, where):
    index = Gallery.create(location, 6, metric=metric)
    features, facts = people(60)
    features[20:40] = features[3]  # more equal distances than are proposed at first
    index.add(features, **facts)
    queries = torch.cat([features[3:4], features[50:51] + 0.1, torch.randn(1, 6)])
    selected = {record.name for record in index.records(where)}
    kept = [i for i, name in enumerate(facts["names"]) if name in selected]
    for query, answer in zip(queries, index.search(queries, 5, where), strict=True):
        row = torch.zeros(len(kept), dtype=torch.int64)
        distances = ops.pair_distances(
            query[None], features, row, torch.tensor(kept, dtype=torch.int64), metric
        )
        nearest = sorted(zip(distances.tolist(), (facts["names"][i] for i in kept), strict=True))[:5]
        assert [(each.distance, each.record.name) for each in answer.found] == nearest
        assert answer.exact


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_many_queries_in_one_pass_find_what_each_finds(location, metric, monkeypatch):
    index = Gallery.create(location, 6, metric=metric)
    for store in ("lance", "milvus", "postgres"):
        if (module := sys.modules.get(f"vreid_ext.gallery.stores.{store}")) is not None:
            monkeypatch.setattr(module, "PIECE", 25)
    features, facts = people(60)
    features[20:50] = features[3]
    index.add(features, **facts)
    names = [*facts["names"][:20], "another"]
    queries = torch.cat([features[:20], features[3:4]])
    together = index.search(queries, 7, "camera != 2", names=names)
    alone = [
        index.search(q[None], 7, "camera != 2", names=[n])[0] for q, n in zip(queries, names, strict=True)
    ]
    assert together == alone


def test_filters_select_the_same_in_every_store(location):
    index = Gallery.create(location, 6)
    features, facts = people(60)
    index.add(features, **facts)
    for where in FILTERS[1:]:
        expected = sorted(
            name
            for name, person, camera, start, end, frames in zip(*list(facts.values())[:6], strict=True)
            if _meets(where, person, str(camera), start, end, frames)
        )
        assert sorted(record.name for record in index.records(where)) == expected, where
        assert index.count(where) == len(expected)


def _meets(where, person, camera, start, end, frames) -> bool:
    low, high = START + timedelta(minutes=10), START + timedelta(minutes=40, seconds=10)
    return {
        FILTERS[1]: lambda: camera != "3" and start is not None and start <= high and end >= low,
        FILTERS[2]: lambda: person is None or not (camera in "12" and frames >= 4),
        FILTERS[3]: lambda: person in STRANGE[:3],
        FILTERS[4]: lambda: person in STRANGE[3:6],
        FILTERS[5]: lambda: start is None,
        FILTERS[6]: lambda: False,
    }[where]()


def test_what_is_added_is_there_when_it_is_opened_again(location):
    features, facts = people(12)
    Gallery.create(location, 6, metric="euclidean", model={"weights": "abc"}).add(features, **facts)
    index = Gallery(location)
    assert len(index) == 12
    assert (index.dimensions, index.metric, index.model) == (6, "euclidean", {"weights": "abc"})
    assert torch.equal(index.features(facts["names"][::-1]), features.flip(0))
    record = index.records("name = 'O''Neil/00000'")[0]
    assert record._replace(added=None) == (
        "O'Neil/00000", "O'Neil", "0", START, START + timedelta(seconds=30), 1, ("/pictures/0.jpg",), None
    )  # fmt: skip
    assert timedelta(0) <= datetime.now(UTC) - record.added < timedelta(minutes=5)
    json.dumps(record.as_json())
    info = index.info()
    assert (info["tracklets"], info["persons"], info["without_person"]) == (12, 6, 4)
    assert info["without_time"] == 2
    assert info["cameras"]["1"]["first"] == str(START + timedelta(minutes=1))
    assert index.location.address in repr(index) or "://" in repr(index)


def test_adding_again_changes_nothing(gallery):
    features, facts = people(12)
    assert gallery.add(features, **facts) == (12, 0)
    assert gallery.add(features, **facts) == (0, 12)
    more, others = people(20)
    assert gallery.add(more, **others) == (8, 12)
    assert len(gallery) == 20


@pytest.mark.parametrize("key", ["persons", "cameras", "starts", "frames", "features"])
def test_a_name_is_one_tracklet(gallery, key):
    features, facts = people(12)
    gallery.add(features, **facts)
    more, others = people(13)
    if key == "features":
        more[5] += 1
    else:
        others[key][5] = {"persons": "B", "cameras": 8, "starts": START, "frames": 99}[key]
    with pytest.raises(ValueError, match=r"^names: expected new tracklets, got .*/00005', .* another"):
        gallery.add(more, **others)
    assert len(gallery) == 12


def test_removal(gallery):
    features, facts = people(20)
    gallery.add(features, **facts)
    assert gallery.remove("camera = 3 or start is unknown") == 8
    assert gallery.remove("camera = 3") == 0
    assert {record.camera for record in gallery.records()} == {"0", "1", "2"}
    answer = gallery.search(features[3:4], 20)[0]
    assert len(answer.found) == len(gallery) == 12
    assert gallery.add(features, **facts) == (8, 12)


def test_a_reader_sees_what_another_has_added(location):
    writer = Gallery.create(location, 6)
    reader = Gallery(location)
    features, facts = people(8)
    assert len(reader) == 0
    assert reader.search(features[:1])[0] == ([], True)
    writer.add(features, **facts)
    assert len(reader) == 8
    assert reader.search(features[:1], 1)[0].found[0].record.name == facts["names"][0]


def test_a_query_is_not_its_own_neighbour(gallery):
    features, facts = people(8)
    gallery.add(features, **facts)
    names = [facts["names"][0], facts["names"][1]]
    first, second = gallery.search(torch.stack([features[0], features[2]]), 8, names=names)
    assert facts["names"][0] not in {each.record.name for each in first.found}
    assert facts["names"][1] in {each.record.name for each in second.found}  # the name, but another feature


def test_the_approximate_index_finds_and_does_not_say_exact(location):
    index = Gallery.create(location, 16)
    centers = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    features = centers.repeat_interleave(240, 0) + 0.1 * torch.randn(12_000, 16)
    names = [f"t{i}" for i in range(len(features))]
    index.add(features, names)
    described = index.optimize()
    if location.startswith("milvus"):
        assert "searches exhaustively" in described
        return
    assert "approximate index" in described
    queries = features[::600]
    exact = index.search(queries, 5)
    assert all(answer.exact for answer in exact)
    near = index.search(queries, 5, exhaustive=False)
    assert not any(answer.exact for answer in near)
    hits = [
        len({each.record.name for each in a.found} & {each.record.name for each in b.found}) / 5
        for a, b in zip(exact, near, strict=True)
    ]
    assert np.mean(hits) > 0.8
    index.add(features[:1] + 5, ["new"])  # newer than the index
    assert index.search(features[:1] + 5, 1, exhaustive=False)[0].found[0].record.name == "new"


NEW = {"names": ["a", "b"]}


@pytest.mark.parametrize(
    ("features", "facts", "message"),
    [
        (torch.zeros(2, 5), NEW, r"features: expected shape \(n,6\) as in the index, got \(2, 5\)"),
        (torch.full((2, 6), torch.nan), NEW, "features: expected finite numbers"),
        (torch.full((2, 6), 1e30), NEW, "features: expected rows of a norm from 0 to 1e\\+15, got 2.4"),
        (torch.zeros(2, 6), {"names": ["a", "a"]}, "names: expected unique names, got 'a' twice"),
        (torch.zeros(2, 6), {"names": ["a"]}, "names: expected 2, one for each feature, got 1"),
        (torch.zeros(2, 6), {"names": "ab"}, "names: expected 2, one for each feature, got text"),
        (torch.zeros(2, 6), {"names": ["a", ""]}, "names: expected 1 to 500 printable characters"),
        (torch.zeros(2, 6), {"names": ["a", "\0"]}, "names: expected 1 to 500 printable characters"),
        (torch.zeros(2, 6), {"names": ["a", "\udc80"]}, "names: expected 1 to 500 printable characters"),
        (
            torch.zeros(2, 6),
            NEW | {"starts": [None, "2026-11-27T08:00"]},
            "starts: expected a time with a zone",
        ),
        (torch.zeros(2, 6), NEW | {"starts": [None, "noon"]}, "starts: expected a time such as"),
        (
            torch.zeros(2, 6),
            NEW | {"starts": [START, None]},
            "ends: expected an end not before the start of 'a'",
        ),
        (
            torch.zeros(2, 6),
            NEW | {"starts": [START] * 2, "ends": [START, START - timedelta(1)]},
            "ends: expected an end not before the start of 'b'",
        ),
        (torch.zeros(2, 6), NEW | {"frames": [1, 0]}, "frames: expected an int >= 1"),
    ],
)
def test_wrong_arguments_add_nothing(gallery, features, facts, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        gallery.add(features, **facts)
    assert len(gallery) == 0


def test_the_cosine_of_a_zero_feature_is_not_defined(location):
    index = Gallery.create(location, 6)
    with pytest.raises(ValueError, match=r"^features: expected rows of a norm from 1e-15 to 1e\+15, got 0"):
        index.add(torch.zeros(1, 6), ["a"])
    with pytest.raises(ValueError, match=r"^queries: expected rows of a norm"):
        index.search(torch.zeros(1, 6))


def test_zones_are_converted(gallery):
    east = timezone(timedelta(hours=5, minutes=30))
    at = datetime(2026, 11, 27, 13, 30, 0, 123456, tzinfo=east)
    gallery.add(torch.zeros(1, 6), ["a"], starts=[at], ends=["2026-11-27T09:00:00-01:00"])
    record = gallery.records()[0]
    assert (record.start, record.end) == (at, START + timedelta(hours=2))
    assert record.start.isoformat() == "2026-11-27T08:00:00.123456+00:00"


def test_wrong_searches(gallery):
    with pytest.raises(ValueError, match=r"^queries: expected shape \(n,6\)"):
        gallery.search(torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"^top: expected an int >= 1"):
        gallery.search(torch.zeros(1, 6), 0)
    with pytest.raises(ValueError, match=r"^where: expected a field .* did you mean 'camera'"):
        gallery.remove("camra = 3")
    with pytest.raises(ValueError, match=r"^names: expected names of tracklets of the index, got 'x'"):
        gallery.features(["x"])


def test_there_is_one_index_at_a_location(location):
    with pytest.raises(ValueError, match=r"^index: expected an index, got .*which has none"):
        Gallery(location)
    Gallery.create(location, 6)
    with pytest.raises(ValueError, match=r"^index: expected a new index, got .*, which has one"):
        Gallery.create(location, 6)


def test_an_index_of_a_newer_version(location, monkeypatch):
    monkeypatch.setattr("vreid_ext.gallery.gallery.FORMAT", 2)
    Gallery.create(location, 6)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"^index: expected format 1, got 2 in .* another version"):
        Gallery(location)


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    pytest.importorskip("lancedb", reason="needs the extra [gallery]")
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"^index: expected a new or empty folder"):
        Gallery.create(tmp_path, 6)
    with pytest.raises(ValueError, match=r"^index: expected an index, got"):
        Gallery(tmp_path / "typo")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_server_that_is_not_there():
    pytest.importorskip("psycopg", reason="needs the extra [gallery-postgresql]")
    with pytest.raises(
        StoreError, match=r"^index: 'postgresql://me@127.0.0.1:1/x': PostgreSQL reports: [^\n]+$"
    ):
        Gallery("postgresql://me:secret@127.0.0.1:1/x")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("people", ("lancedb", "people", "vreid")),
        ("lancedb:s3://bucket/people", ("lancedb", "s3://bucket/people", "vreid")),
        ("postgresql://me@db/x#gate_1", ("postgresql", "postgresql://me@db/x", "gate_1")),
        ("milvus:http://db:19530", ("milvus", "http://db:19530", "vreid")),
    ],
)
def test_locations(text, parsed):
    assert parse_location(text) == parsed


@pytest.mark.parametrize(
    "text", ["qdrant://host", "postgresql://h/x#Gate", "milvus:x.db#a-b", "milvus:x.db#"]
)
def test_wrong_locations(text):
    with pytest.raises(ValueError, match=r"^index: expected .*, got"):
        parse_location(text)


def test_a_password_is_not_shown():
    assert (
        str(Location("postgresql", "postgresql://me:secret@db:5432/x", "vreid"))
        == "postgresql://me@db:5432/x"
    )


@pytest.mark.parametrize(
    ("location", "extra"), [("x", "gallery"), ("postgresql://h/x", "gallery-postgresql")]
)
def test_an_engine_that_is_not_installed(location, extra, monkeypatch):
    for module in (
        "lancedb",
        "psycopg",
        "vreid_ext.gallery.stores.lance",
        "vreid_ext.gallery.stores.postgres",
    ):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, module) if module.startswith("vreid") else None
    with pytest.raises(ModuleNotFoundError, match=rf"is not installed: pip install 'vreid-ext\[{extra}\]'"):
        Gallery(location)


def test_the_attribute_is_lazy():
    code = (
        "import sys, vreid_ext; assert 'vreid_ext.gallery' not in sys.modules; "
        "print(vreid_ext.Gallery.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Gallery\n"
    assert vreid_ext.Gallery is Gallery


def check_after_kill(location, acknowledged):
    """Every acknowledged batch is there, and every batch is whole; returns the batches."""
    records = Gallery(location).records()
    batches = {}
    for record in records:
        batches.setdefault(int(record.camera), []).append(record.name)
    assert set(acknowledged) <= set(batches)
    assert all(len(names) == BATCH for names in batches.values())
    return batches


def kills(location, count, seed):
    if location.startswith("milvus"):
        pytest.skip("Milvus Lite is open in one process at a time")
    Gallery.create(location, 6)
    random = np.random.default_rng(seed)
    acknowledged, first, unacknowledged = [], 0, 0
    for number in range(1, count + 1):
        now = kill_while_adding(location, random.uniform(0.02, 0.6), first)
        acknowledged += now
        batches = check_after_kill(location, acknowledged)
        unacknowledged += len(set(batches) - set(acknowledged))
        acknowledged = sorted(batches)
        first = max(batches, default=-1) + 1
        print(
            f"{number} kills: {len(batches)} batches, {unacknowledged} written but not acknowledged",
            flush=True,
        )
    assert acknowledged, "no batch was written before a kill"


def test_killed_while_adding(location):
    kills(location, 2, seed=0)


@pytest.mark.slow
def test_killed_fifty_times_while_adding(location):
    kills(location, 50, seed=1)
