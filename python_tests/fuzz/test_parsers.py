"""Our own parsers of data sets and recipes under atheris, which keeps inputs that reach new lines of them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from scipy.io import savemat

from vreid_ext.attributes import attribute_sizes
from vreid_ext.data.pose.joints import JOINTS
from vreid_ext.engine import load_recipe

FUZZER = Path(__file__).with_name("parsers.py")
RUNS = {"recipe": 20_000}  # a recipe is read, written and read again


def seeds(parser: str, folder: Path) -> None:
    """Whole files to start from."""
    frames = [[[1.5, 2.0, 0.5]] * len(JOINTS)] * 2
    track = {"id": 0, "person": "A", "frames": [0, 2], "boxes": [[1, 2, 10, 20], [3, 4, 10, 20.5]]}
    text = {
        "attributes": "\n".join([",".join("h" * 24), "1,2,3" + ",0" * len(attribute_sizes("mars"))]),
        "joints": json.dumps({"joints": JOINTS, "tracklets": {"a": frames, "b": frames}}),
        "joints_lines": "\n".join(
            [json.dumps({"joints": JOINTS}), json.dumps({"tracklet": "a", "frames": frames}), ""]
        ),
        "boxes": json.dumps({"video": "a", "sha256": "0", "fps": 10, "size": [64, 48], "tracklets": [track]}),
        "splits": json.dumps([{"train": ["a", "b"], "test": ["c"]}] * 2),
        "manifest": json.dumps({"format": 1, "identity": {}, "tracklets": [], "shard_rows": 4}),
    }
    if parser == "recipe":
        # YAML that is JSON as well, whose structure is changed.
        for name in ("sta_mars", "drsta_mars", "asta_mars_aitl"):
            (folder / name).write_text(json.dumps(load_recipe(name).to_dict()))
        (folder / "base").write_text(
            'base: [_sta, _mars]\nmodel: {blocks: 8, input_size: ["${input.height}", 1]}\n'
        )
    elif parser == "matrix":
        for compressed in (False, True):
            content = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones((2, 2), np.uint8)}
            savemat(folder / f"{compressed}.mat", content, do_compression=compressed)
    elif parser == "shard":
        (folder / "seed").write_bytes(save({"features": torch.ones(2, 3)}, {"of": "0", "sha256": "1"}))
    else:
        (folder / "seed").write_text(text[parser])


@pytest.mark.slow
@pytest.mark.parametrize(
    "parser",
    ["matrix", "attributes", "joints", "joints_lines", "boxes", "splits", "manifest", "recipe", "shard"],
)
def test_no_file_ends_a_parser(parser, tmp_path):
    pytest.importorskip("atheris", reason="needs atheris, of the extra [fuzz]")
    seeds(parser, tmp_path)
    runs = RUNS.get(parser, 200_000)
    options = [f"-runs={runs}", "-seed=1", "-timeout=20", "-rss_limit_mb=4096", "-max_len=8192"]
    result = subprocess.run(
        [sys.executable, str(FUZZER), parser, *options, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    print(result.stderr.splitlines()[-1])
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    assert f"Done {runs} runs" in result.stderr
