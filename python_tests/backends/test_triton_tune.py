"""Choice of the fastest tiles, with a clock that is told what to show, and the file that holds them."""

import json
import sys

import pytest
import torch

pytest.importorskip("triton")

from triton.runtime.errors import OutOfResources

from vreid_ext import cli
from vreid_ext.backends.triton import configs, tune

PRESENT = dict(configs.TABLES["mining"])
LARGE = 2**63
WANTED = configs.ProductTile(64, 32, 64, 4, 3)


@pytest.fixture(autouse=True)
def no_file_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(configs.FILE_VARIABLE, raising=False)
    configs.tables_of.cache_clear()
    yield
    configs.tables_of.cache_clear()


def fastest_mining(time: float):
    """WANTED takes `time` in large mining, everything else one millisecond; the largest tile does not fit."""

    def timer(name: str, limit: int, tile) -> float:
        if isinstance(tile, configs.ProductTile) and tile.BLOCK_M == 128:
            raise OutOfResources(300_000, 200_000, "shared memory")
        return time if (name, limit, tile) == ("mining", LARGE, WANTED) else 1.0

    return timer


def test_the_fastest_tile_is_chosen_where_it_is_worth_it():
    lines: list[str] = []
    tables = tune.tune(fastest_mining(0.9), lines.append)
    assert tables == configs.TABLES | {"mining": tuple((PRESENT | {LARGE: WANTED}).items())}
    assert len(lines) == sum(map(len, configs.TABLES.values()))
    assert tune.tune(fastest_mining(0.98), lines.append) == configs.TABLES


def test_a_failure_of_the_present_tile_is_an_error():
    def timer(name: str, limit: int, tile) -> float:
        raise OutOfResources(300_000, 200_000, "shared memory")

    with pytest.raises(OutOfResources):
        tune.tune(timer, print)


def test_every_candidate_is_one_that_the_file_may_hold(tmp_path):
    path = tmp_path / "tables.json"
    for name, table in configs.TABLES.items():
        for candidate in tune.candidates(table[0][1]):
            other = {name: ((table[0][0], candidate), *table[1:])}
            path.write_text(json.dumps(tune.as_json({"a GPU": other})))
            assert configs.read_tables(path) == {"a GPU": other}


def test_the_command_writes_what_the_kernels_read(monkeypatch, tmp_path, capsys):
    path = tmp_path / "folder" / "tables.json"
    path.parent.mkdir()
    path.write_text(json.dumps(tune.as_json({"another GPU": configs.TABLES})))
    monkeypatch.setattr(tune, "measure", fastest_mining(0.5))
    monkeypatch.setattr("vreid_ext.backends.triton.unavailable", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(sys, "argv", ["vreid", "tune", "--out", str(path), "--json"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out) == {"gpu": "a GPU", "tables": str(path)}
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert configs.chosen("mining", 2**40, gpu) == PRESENT[LARGE]
    configs.tables_of.cache_clear()
    monkeypatch.setenv(configs.FILE_VARIABLE, str(path))
    assert configs.chosen("mining", 2**40, gpu) == WANTED
    assert configs.chosen("mining", 2**40, cpu) == PRESENT[LARGE]
    assert configs.tables_of("another GPU") == configs.tables_of("unknown") == configs.TABLES


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"a GPU": {"mining": [[1, {}]]}}',
        '{"a GPU": {"pooling": []}}',
        '{"a GPU": {"part_metric": []}}',
        json.dumps(tune.as_json({"a GPU": configs.TABLES})).replace('"BLOCK_N": 128', '"BLOCK_N": 100'),
        json.dumps(tune.as_json({"a GPU": configs.TABLES})).replace('"BLOCK_N": 128', '"BLOCK_N": 32'),
        json.dumps(tune.as_json({"a GPU": configs.TABLES})).replace('"num_warps": 8', '"num_warps": 0'),
    ],
)
def test_a_file_that_holds_something_else_is_named(tmp_path, text):
    path = tmp_path / "tables.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"tables\.json: expected tiles as `vreid tune` writes them, got .*"):
        configs.read_tables(path)


def test_a_machine_without_a_gpu_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["vreid", "tune"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    message = "vreid: error: the Triton kernels cannot be tuned: torch sees no CUDA device\n"
    assert capsys.readouterr().err == message


@pytest.mark.gpu
@pytest.mark.parametrize("name", configs.TABLES)
def test_tiles_are_measured_on_a_gpu(name):
    for limit, tile in configs.TABLES[name]:
        assert 0 < tune.measure(name, limit, tile) < 1000
