"""What must fit is what a chunk takes, not the tracklet or the gallery: under a limit set by the system."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vreid_ext import metrics

# RLIMIT_DATA bounds what a process may write to that is its own; files that are mapped to be read do not
# count, as they do not stay.
LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

def limit(mib):
    most = int(status("VmData") + mib) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
"""

LONG = (
    LIMITED
    + """
from vreid_ext import models
from vreid_ext.data import Tracklet, test_transform
from vreid_ext.engine import extract_features

folder, mib, chunk = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
model = models.build_model("sta", 4, backbone="resnet18", feature_dim=64)
paths = tuple(str(path) for path in sorted(Path(folder).glob("*.jpg")))
options = dict(frames=4, sampling="dense", transform=test_transform(256, 128), chunk=chunk)
extract_features(model, [Tracklet(paths[:8], 1, 1, "short")], **options)
before = status("VmRSS")
limit(mib)
extract_features(model, [Tracklet(paths, 1, 1, "long")], **options)
print(json.dumps({"before": before, "peak": status("VmHWM")}))
"""
)


def python(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """2,000 frames, which take 750 MiB once they are on their way to the model."""
    folder = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(0)
    for number in range(2000):
        Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(folder / f"{number:04d}.jpg")
    return folder


@pytest.mark.slow
def test_two_thousand_frames_in_a_limit_that_they_would_not_fit_into(frames):
    done = python(LONG, frames, 256, 4)
    assert done.returncode == 0, done.stderr[-2000:]
    print("resident MiB:", done.stdout)
    at_once = python(LONG, frames, 256, 500)
    assert at_once.returncode != 0
    assert "memory" in at_once.stderr.lower(), at_once.stderr[-2000:]


STORE = (
    LIMITED
    + """
import numpy as np
from vreid_ext.data import Tracklet
from vreid_ext.features.write import store_features

folder, count, queries, width = Path(sys.argv[1]), *map(int, sys.argv[2:])
# Ten tracklets a person, cameras in turn; queries are the last of the first persons.
tracklets = [Tracklet((f"{n}",), n // 10, n % 10, f"{n}") for n in range(count)]

def rows(block):
    noise = np.random.default_rng(block.start).standard_normal((len(block), width), np.float32)
    persons = torch.arange(block.start, block.stop) // 10
    generator = [torch.Generator().manual_seed(int(person)) for person in persons.unique()]
    centres = torch.stack([torch.randn(width, generator=each) for each in generator])
    return {"features": centres[persons - persons[0]] + 1.2 * torch.from_numpy(noise)}

splits = {"query": list(range(9, 10 * queries, 10)), "gallery": list(range(count))}
embed = lambda blocks: map(rows, blocks)
store_features(folder, {"model": "none"}, tracklets, embed, shard_rows=8192, splits=splits)
"""
)

EVALUATE = (
    LIMITED
    + """
from vreid_ext import metrics

stored = metrics.StoredFeatures(sys.argv[1])
labels = [stored.labels(split) for split in ("query", "gallery")]
itself = torch.tensor(stored.manifest["splits"]["query"])
before = status("VmRSS")
limit(int(sys.argv[2]))
query, gallery = stored.rows("query"), stored.rows("gallery")
if sys.argv[3] == "in memory":
    gallery = gallery[:]
(q_pids, q_camids), (g_pids, g_camids) = labels
result = metrics.evaluate(query, gallery, q_pids, g_pids, q_camids, g_camids, exclude=itself)
told = {"before": before, "peak": status("VmHWM"), "mAP": result.mAP, "rank1": float(result.cmc[0])}
print(json.dumps(told))
"""
)


def figures_by_hand(folder, count, queries, width):
    """mAP and rank-1 from every distance, piece by piece in float64."""
    stored = metrics.StoredFeatures(folder)
    query = stored.rows("query")[:].astype(np.float64)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    own = np.arange(9, 10 * queries, 10)
    positives = own[:, None] - np.arange(1, 10)

    def similar(rows):
        rows = rows.astype(np.float64)
        return query @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T

    gallery = stored.rows("gallery")
    hits = np.take_along_axis(similar(gallery[np.arange(10 * queries)]), positives, 1)
    hits = -np.sort(-hits, 1)
    before = np.zeros(hits.shape, np.int64)
    for first in range(0, count, 8192):
        piece = similar(gallery[first : first + 8192])
        inside = (own >= first) & (own < first + 8192)
        piece[inside, own[inside] - first] = -2  # the query itself
        for place in range(hits.shape[1]):
            before[:, place] += (piece > hits[:, place : place + 1]).sum(1)
    ap = (np.arange(1, 10) / (before + 1)).mean(1)
    return ap.mean(), (before[:, 0] == 0).mean()


@pytest.mark.slow
def test_a_million_tracklets_in_a_limit_that_they_would_not_fit_into(tmp_path):
    count, queries, width = 1_000_000, 100, 128
    stored = python(STORE, tmp_path / "f", count, queries, width)
    assert stored.returncode == 0, stored.stderr[-2000:]
    done = python(EVALUATE, tmp_path / "f", 256, "from disk")
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    print("resident MiB:", told["before"], told["peak"])
    mean_ap, first = figures_by_hand(tmp_path / "f", count, queries, width)
    assert 0.05 < mean_ap < 0.95
    assert told["mAP"] == pytest.approx(mean_ap, abs=1e-12)
    assert told["rank1"] == pytest.approx(first, abs=1e-12)
    in_memory = python(EVALUATE, tmp_path / "f", 256, "in memory")
    assert in_memory.returncode != 0
    assert "memory" in in_memory.stderr.lower(), in_memory.stderr[-2000:]
