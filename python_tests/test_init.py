"""`vreid` without arguments, and the command `vreid init`."""

import json
import subprocess
import sys

from vreid_ext.data.synth import synthesize


def test_vreid_alone_names_four_ways_to_start(vreid):
    code, output, _ = vreid()
    assert code == 0
    for start in (
        "vreid demo",
        "vreid init FOLDER",
        "vreid tracklets VIDEO",
        "import vreid_ext",
        "vreid info",
    ):
        assert start in output
    assert max(map(len, output.splitlines())) <= 100


def test_vreid_alone_needs_no_further_package():
    code = (
        "import sys; sys.modules['typer'] = sys.modules['rich'] = None; sys.argv = ['vreid'];"
        "import vreid_ext.cli as c; c.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Four ways to start" in done.stdout


def test_init_writes_a_recipe_named_after_the_folder(vreid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synthesize(tmp_path / "walkers", ids=8, cameras=2, tracklets=1, frames=4, size=(32, 16))
    code, output, errors = vreid("init", "walkers", "--weights", "none", "--cpu")
    assert code == 0, errors
    assert "mars at walkers" in output
    assert "written: walkers.yaml; next: vreid train walkers.yaml" in output

    code, _, errors = vreid("init", "walkers")
    assert code == 1
    assert errors == (
        "vreid: error: out: expected a new file, got walkers.yaml, which exists; --force replaces it\n"
    )

    code, output, errors = vreid("init", "walkers", "--gpu", "--force", "--json")
    assert code == 0, errors
    result = json.loads(output)
    assert result["recipe"] == "walkers.yaml"
    assert result["proposal"]["backbone"] == "resnet50"
    assert result["train"]["persons"] == 4
    assert result["matched"] == result["queries"] == 8


def test_init_of_an_empty_folder(vreid, tmp_path):
    code, _, errors = vreid("init", tmp_path)
    assert code == 1
    assert errors == (
        f"vreid: error: root: expected a folder of tracklets, got {tmp_path}, which contains no image\n"
    )
    assert not list(tmp_path.iterdir())
