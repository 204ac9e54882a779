import os
from pathlib import Path

import pytest

from vreid_ext.data import DatasetError, attribute_labels, attribute_sizes, read_attributes

MARS_ROW = "7,2,58,4,5,1,0,1,0,0,0,1,8,9,3,1,0,1,0,1,0,1,0,1"


def shared(name):
    base = Path(os.environ.get("VREID_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not (base / name).exists():
        pytest.skip(f"no {name} in {base}; set VREID_SHARED_DATA to the folder with the real metadata")
    return base / name


def table(path, *rows, header="a" + "," * 23):
    path.write_bytes("\n".join([header, *rows]).encode("gbk"))
    return path


@pytest.mark.parametrize(("dataset", "rows", "people"), [("mars", 16360, 1259), ("dukev", 4832, 1812)])
def test_real_tables(dataset, rows, people):
    read = read_attributes(shared(f"attributes/{dataset.removesuffix('v')}_attributes.csv"), dataset)
    assert len(read) == rows
    assert len({pid for pid, *_ in read}) == people
    for name, size in attribute_sizes(dataset).items():
        # Some classes are absent from the Duke table.
        assert max(values[name] for values in read.values()) <= size - 1
    if dataset == "mars":
        assert read[1, 2, 58]["top_color"] == 8


@pytest.mark.parametrize(
    ("dataset", "group", "attributes", "width"),
    [("mars", "id_irrelevant", 9, 25), ("mars", "id_relevant", 12, 41), ("dukev", "id_irrelevant", 9, 25),
     ("dukev", "id_relevant", 10, 33), ("mars", "all", 21, 66), ("dukev", "all", 19, 58)],
)  # fmt: skip
def test_group_sizes(dataset, group, attributes, width):
    sizes = attribute_sizes(dataset, group)
    assert (len(sizes), sum(sizes.values())) == (attributes, width)


def test_gbk_header_and_blank_line_are_survived(tmp_path):
    read = read_attributes(table(tmp_path / "t.csv", MARS_ROW, "", header="人" + "," * 23))
    assert list(read) == [(7, 2, 58)]
    values = read[7, 2, 58]
    assert (values["motion"], values["pose"], values["top_color"], values["bottom_type"]) == (4, 5, 8, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([MARS_ROW + ",1"], r"t\.csv, line 2: expected 24 columns for mars, got 25"),
        ([MARS_ROW, MARS_ROW], r"line 3: .* got a second one for person 7, camera 2, tracklet 58"),
        ([MARS_ROW.replace("58,4,5", "58,4,6")], r"line 2: pose: expected 0 \.\. 5, got 6"),
        ([MARS_ROW.replace("58", "red")], r"line 2: .*'red'"),
    ],
)
def test_bad_row_is_named(tmp_path, rows, message):
    with pytest.raises(DatasetError, match=message):
        read_attributes(table(tmp_path / "t.csv", *rows))


def test_missing_table_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nothing\.csv: cannot read"):
        read_attributes(tmp_path / "nothing.csv")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="dataset: expected one of mars, dukev, got 'market'"):
        attribute_sizes("market")
    with pytest.raises(ValueError, match=r"group: expected .*, got 'some'"):
        attribute_sizes("mars", "some")


def test_labels_of_unknown_tracklets_and_attributes_are_ignored():
    assert attribute_labels({"hat": 1, "age": 3}, ["age", "pose", "hat"]).tolist() == [3, -1, 1]
    assert attribute_labels(None, ["age", "hat"]).tolist() == [-1, -1]
