import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from footage import MODEL, TRACKLETS, threshold_content, write_features, write_footage

from vreid_ext.engine.index import add_features, check_index_threshold, create_index, read_query, search_index
from vreid_ext.engine.search import read_split, search
from vreid_ext.engine.threshold import read_threshold
from vreid_ext.gallery import Gallery

pytest.importorskip("lancedb", reason="needs the extra [gallery]")

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def root(tmp_path):
    return write_footage(tmp_path / "people")


@pytest.fixture
def features(tmp_path, root):
    return write_features(tmp_path / "features", root)


@pytest.fixture
def index(tmp_path, features):
    return create_index(tmp_path / "index", features)


def test_facts_come_from_folders_frame_numbers_and_frame_rate(index, features, root):
    starts = {"gate": "2026-11-27T13:00:00+01:00", None: "2026-11-27T11:59:00Z"}
    assert add_features(index, features, starts=starts) == ((6, 0), [])
    records = {record.name: record for record in index.records()}
    assert set(records) == {f"{person}/{camera}/{tracklet}" for person, camera, tracklet, _ in TRACKLETS}
    anna = records["Anna/gate/0004"]
    assert (anna.person, anna.camera, anna.frames) == ("Anna", "gate", 3)
    assert (anna.start, anna.end) == (NOON + timedelta(seconds=90), NOON + timedelta(seconds=90.2))
    assert anna.pictures == tuple(str(root / f"Anna/gate/0004/{frame:06}.jpg") for frame in (900, 901, 902))
    assert records["Anna/street/0000"].start == NOON + timedelta(seconds=-30)
    unknown = records["gate-unknown0002/gate/0002"]
    assert (unknown.person, unknown.camera) == (None, "gate")
    assert add_features(index, features, starts=starts) == ((0, 6), [])


def test_a_search_lists_what_a_search_in_the_folder_does(index, features):
    add_features(index, features, batch=4)
    lists, drifts = search_index(index, read_query(features), 3)
    assert drifts == []
    expected = search(read_split(features, "query"), read_split(features, "gallery"), 3)
    assert [
        (entry["query"], [(item["name"], item["distance"]) for item in entry["nearest"]]) for entry in lists
    ] == [
        (entry["query"], [(item["name"], item["distance"]) for item in entry["nearest"]])
        for entry in expected
    ]
    assert all(entry["exact"] for entry in lists)


def test_without_the_images_the_facts_are_those_of_the_manifest(index, features, root):
    shutil.rmtree(root)
    added, notes = add_features(index, features)
    assert added == (6, 0)
    assert "no pictures: the data set cannot be read" in notes[0]
    assert {record.camera for record in index.records()} == {"gate", "street"}
    with pytest.raises(ValueError, match=r"^start: expected a data set, which has the frame numbers"):
        add_features(index, features, starts={None: "2026-11-27T12:00Z"}, prefix="x/")


def test_a_table_replaces_facts(index, features, tmp_path):
    table = tmp_path / "facts.csv"
    table.write_text(
        "name,person,camera,start,end\nAnna/gate/0000,,door,2026-11-27T12:00Z,2026-11-27T12:01Z\n"
        "gate-unknown0002/gate/0002,Cleo,,,\n"
    )
    add_features(index, features, facts=table, prefix="monday/")
    records = {record.name: record for record in index.records()}
    anna = records["monday/Anna/gate/0000"]
    assert (anna.person, anna.camera, anna.end) == ("Anna", "door", NOON + timedelta(minutes=1))
    assert records["monday/gate-unknown0002/gate/0002"].person == "Cleo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,persn\nAnna/gate/0000,B\n",
            r"expected the columns name, .*got 'persn'; did you mean 'person'\?",
        ),
        ("person\nB\n", "expected a column 'name'"),
        ("name,person\nAnna/gate/000,B\n", "line 2, got 'Anna/gate/000'; did you mean 'Anna/gate/000"),
        ("name,person\nAnna/gate/0000\n", "expected 2 cells in .*, line 2"),
        ("name,start\nAnna/gate/0000,2026-11-27T12:00\n", "line 2, start: expected a time with a zone"),
        ("name,frames\nAnna/gate/0000,many\n", "expected a number of frames in .*, line 2, got 'many'"),
        ("", "expected a column 'name'"),
    ],
)
def test_a_wrong_table_adds_nothing(index, features, tmp_path, text, message):
    table = tmp_path / "facts.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=rf"^facts: .*{message}"):
        add_features(index, features, facts=table)
    with pytest.raises(ValueError, match=r"^facts: expected a CSV file"):
        add_features(index, features, facts=tmp_path / "none.csv")
    assert len(index) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"starts": {None: "2026-11-27T12:00"}}, "start: expected a time with a zone"),
        (
            {"starts": {"gat": "2026-11-27T12:00Z"}},
            "start: expected one of the cameras gate, street, got 'gat'",
        ),
        ({"starts": {None: "2026-11-27T12:00Z"}, "fps": 0.0}, "fps: expected a number of frames per second"),
        ({"split": "train"}, "split: expected one of"),
        ({"batch": 0}, "batch: expected at least 1"),
        ({"root": "nowhere"}, "root: "),
    ],
)
def test_wrong_options_add_nothing(index, features, options, message):
    with pytest.raises(ValueError, match=message):
        add_features(index, features, **options)
    assert len(index) == 0


def test_images_of_another_data_set(index, features, root):
    (root / "Anna/gate/0000/000009.jpg").write_bytes((root / "Anna/gate/0000/000000.jpg").read_bytes())
    with pytest.raises(
        ValueError, match=r"^dataset-root: expected the data set .*without the images of 'Anna"
    ):
        add_features(index, features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "xyz"}, 'expected features of weights "abc", as in the index, got "xyz"'),
        ({"input.height": 128}, "expected features of input.height 64, as in the index, got 128"),
        ({"metric": "euclidean"}, 'expected features of metric "cosine", as in the index, got "euclidean"'),
    ],
)
def test_features_of_another_model(index, root, tmp_path, changes, message):
    other = write_features(tmp_path / "other", root, **changes)
    with pytest.raises(ValueError, match=rf"^features: {message}"):
        add_features(index, other)
    with pytest.raises(ValueError, match=rf"^features: {message}"):
        search_index(index, read_query(other))
    assert len(index) == 0


def test_features_of_another_dimension(tmp_path, features):
    index = Gallery.create(tmp_path / "narrow", 5, model=MODEL)
    with pytest.raises(
        ValueError, match=r"^features: expected features of dimensions 5, as in the index, got 8"
    ):
        add_features(index, features)


def test_a_threshold_of_another_model(index, tmp_path):
    file = tmp_path / "threshold.json"
    file.write_text(json.dumps(threshold_content(0.2, 0.1, 0.3)))
    check_index_threshold(index, read_threshold(file))
    file.write_text(json.dumps(threshold_content(0.2, 0.1, 0.3, model={**MODEL, "weights": "xyz"})))
    with pytest.raises(
        ValueError, match=r'^threshold: expected one for features of weights "abc", got one for "xyz"'
    ):
        check_index_threshold(index, read_threshold(file))
    with pytest.raises(ValueError, match=r"^threshold: expected an index that states its model"):
        check_index_threshold(Gallery.create(tmp_path / "plain", 8), read_threshold(file))


def test_the_commands(vreid, features, tmp_path):
    index = tmp_path / "an index"
    assert vreid("index", "create", index, features)[0] == 0
    code, output, errors = vreid("index", "add", index, features, "--start", "2026-11-27T12:00Z", "--json")
    assert code == 0, errors
    assert json.loads(output) == {"index": str(index), "added": 6, "present": 0, "tracklets": 6, "notes": []}
    file = tmp_path / "threshold.json"
    file.write_text(json.dumps(threshold_content(0.2, 0.1, 0.3)))
    asked = ("--where", "camera != gate", "--top", 2, "--threshold", file)
    code, output, errors = vreid("index", "search", index, features, *asked, "--json")
    assert code == 0, errors
    first = json.loads(output)[0]
    assert first["query"] == "Anna/gate/0000"
    assert [(item["name"], item["answer"]) for item in first["nearest"]] == [
        ("Anna/street/0000", "same"), ("Bo's/street/0001", "not"),
    ]  # fmt: skip
    code, output, errors = vreid("search", features, index, *asked, "--out", tmp_path / "lists.json")
    assert code == 0, errors
    assert "Anna/street/0000  street  2026-11-27T12:00:30+00:00" in output
    assert output.endswith("exact: every tracklet that meets the filter was compared\n")
    assert json.loads((tmp_path / "lists.json").read_text())[0] == first
    code, output, errors = vreid("index", "info", index)
    assert code == 0, errors
    assert "6 tracklets, 2 persons, 1 without a person" in output
    assert "2026-11-27 12:01:30" in output
    assert vreid("index", "optimize", index)[0] == 0
    code, output, _ = vreid("index", "remove", index, "--where", "person = Anna", "--dry-run", "--json")
    assert (code, json.loads(output)["found"]) == (0, 3)
    code, output, _ = vreid("index", "remove", index, "--where", "person = Anna", "--json")
    assert (code, json.loads(output)["tracklets"]) == (0, 3)


def test_errors_of_the_commands_are_one_line(vreid, features, index, tmp_path):
    for arguments, message in [
        (("index", "create", tmp_path / "index", features), "index: expected a new index"),
        (("index", "search", tmp_path / "index", features, "--where", "camra = 3"), "did you mean 'camera'"),
        (("index", "info", tmp_path / "nothing"), "index: expected an index"),
        (("index", "add", tmp_path / "index", features, "--start", "2026-11-27T12:00"), "with a zone"),
        (("search", features, features, "--where", "camera = 3"), "--where: expected an index"),
        (("search", features, tmp_path / "nothing"), "features: expected a folder of features"),
    ]:
        code, _, errors = vreid(*arguments)
        assert code == 1
        assert message in errors
        assert errors.count("\n") == 1
    assert len(index) == 0
