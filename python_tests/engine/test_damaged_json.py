"""Checkpoints and manifests whose JSON is damaged: an error of one line, never features under other names."""

import json
import random
import shutil

import pytest

from vreid_ext import engine, metrics
from vreid_ext.engine.features import export_features
from vreid_ext.engine.open import open_checkpoint

WRONG = (None, -1, 10**30, 1.5, "x", "../../etc/passwd", [], {}, True, [[]], {"a": 1}, 0)


def places(value, path=()):
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def damaged(value, draw):
    """One or two values anywhere removed or replaced."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 2))):
        path = draw.choice(list(places(value)))
        if not path:
            return draw.choice(WRONG)
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        if draw.random() < 0.4:
            del holder[path[-1]]
        else:
            holder[path[-1]] = draw.choice(WRONG)
    return value


def outcome(do):
    """What `do` gives, or None after an error that the command line tells in one line."""
    try:
        return do()
    except (ValueError, TypeError, OSError, RuntimeError):
        return None


@pytest.mark.filterwarnings("ignore:.*its rows are extracted again")
@pytest.mark.parametrize("numbers", [range(15), pytest.param(range(15, 25), marks=pytest.mark.slow)])
def test_damaged_json(small, whole, tmp_path, numbers):
    def read(folder):
        stored = metrics.StoredFeatures(folder)
        stored.verify()
        return [
            (stored.rows(split)[:].tobytes(), stored.tracklets(split), stored.labels(split)[0].tolist())
            for split in ("query", "gallery")
        ]

    recipe = small()
    export_features(whole, tmp_path / "features", ["eval.shard=4"])
    right = read(tmp_path / "features")
    state = json.loads(next((whole / "checkpoints").glob("*/state.json")).read_text())
    manifest = json.loads((tmp_path / "features" / "manifest.json").read_text())
    counts = dict.fromkeys(("opened", "resumed", "read", "extracted"), 0)
    for number in numbers:
        draw = random.Random(number)
        run = shutil.copytree(whole, tmp_path / "run")
        (run / "result.json").unlink()
        next((run / "checkpoints").glob("*/state.json")).write_text(json.dumps(damaged(state, draw)))
        counts["opened"] += outcome(lambda: open_checkpoint(tmp_path / "run")) is not None
        counts["resumed"] += outcome(lambda: engine.train(recipe, tmp_path / "run", quiet=True)) is not None
        folder = shutil.copytree(tmp_path / "features", tmp_path / "damaged")
        (folder / "manifest.json").write_text(json.dumps(damaged(manifest, draw)))
        for name, do in (
            ("read", lambda: read(tmp_path / "damaged")),
            (
                "extracted",
                lambda: export_features(whole, tmp_path / "damaged") and read(tmp_path / "damaged"),
            ),
        ):
            got = outcome(do)
            assert got in (None, right), (number, name)
            counts[name] += got is not None
        shutil.rmtree(run)
        shutil.rmtree(folder)
    print(counts)
    assert all(0 < count < len(numbers) for count in counts.values()), counts
