"""Adapts models to data sets of other cameras without labels, and writes the rows of docs/adapt.md.

    python benchmarks/adaptation.py train SOURCE --root DIR --weights FILE --out DIR
    python benchmarks/adaptation.py adapt TARGET --root DIR --out DIR
    python benchmarks/adaptation.py summarize --out DIR

SOURCE is market1501 (DIR: Market-1501) or rendered (DIR: a folder of `vreid synth`). TARGET is cuhk03, from
market1501 (DIR: CUHK03), or mars_copy, from rendered (DIR: a folder in the layout of MARS). FILE: weights of
an ImageNet MobileNetV2. Each command uses one thread; the same command resumes. `summarize` writes
benchmarks/results/accuracy/adaptation.json from all finished adaptations; `benchmarks/tables.py` writes the
tables.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accuracy import COMMON
from harness import machine

from vreid_ext import engine
from vreid_ext.engine.adapt import adapt

RESULTS = Path(__file__).parent / "results" / "accuracy" / "adaptation.json"
RECIPE = "sta_mars_triplet"
CAMERA = ("dataset.options.images=camera", "dataset.options.gallery=null")


@dataclass(frozen=True)
class Target:
    """source: the data set of the training. overrides: settings of the adaptation.

    k1 is about twice the number of tracklets of a person: two cameras in CUHK03, nine tracklets in the copy
    of MARS. min_samples is at most the number of tracklets of a person. Neither was tuned on the target.
    """

    source: str
    overrides: tuple[str, ...]


SOURCES = {
    "market1501": ("dataset.name=market1501", *CAMERA, "train.epochs=2"),
    "rendered": ("dataset.name=mars", "train.epochs=15"),
}
TARGETS = {
    "cuhk03": Target(
        "market1501",
        (
            "dataset.name=cuhk03",
            *CAMERA,
            "adapt.k1=4",
            "adapt.k2=2",
            "adapt.min_samples=2",
            "adapt.rounds=2",
            "adapt.noise=drop",
        ),
    ),
    "mars_copy": Target(
        "rendered", ("dataset.name=mars", "adapt.k1=18", "adapt.k2=6", "adapt.rounds=2", "adapt.noise=drop")
    ),
}
# All but the last five blocks of the network keep their ImageNet weights, in the adaptation, too.
FIXED = ["stages=[{epochs: 100, freeze: [" + ", ".join(f"backbone.features.{n}" for n in range(14)) + "]}]"]
# As benchmarks/accuracy.py, with two frames per clip instead of four, and fewer trained blocks.
SETTINGS = [*COMMON, *FIXED, "model.neck=bn", "input.frames=2", "eval.frames=[2]", "schedule.warmup_epochs=0"]


def train(source: str, root: Path, weights: Path, out: Path) -> None:
    settings = [f"dataset.root={root}", f"model.weights={weights}", "train.evaluate=false"]
    recipe = engine.load_recipe(RECIPE, [*SETTINGS, *SOURCES[source], *settings])
    engine.train(recipe, out / source)


def adapt_to(name: str, root: Path, out: Path) -> None:
    target = TARGETS[name]
    start = time.process_time()
    result = adapt(
        out / target.source,
        [*target.overrides, *FIXED, "optim.lr=1e-4", f"dataset.root={root}"],
        out / name,
        report=lambda facts: print(json.dumps(facts), flush=True),
    )
    print(json.dumps(result["differences"]), f"{(time.process_time() - start) / 60:.1f} CPU minutes")


def summarize(out: Path, results: Path = RESULTS) -> dict[str, Any]:
    content: dict[str, Any] = {"machine": machine(), "recipe": RECIPE, "common": SETTINGS, "rows": []}
    for name, target in TARGETS.items():
        if (out / name / "result.json").is_file():
            result = json.loads((out / name / "result.json").read_text())
            figures = {key: result[key] for key in ("protocol", "rounds", "before", "rows", "differences")}
            content["rows"].append({
                "target": name, **asdict(target), "trained": SOURCES[target.source],
                **figures,
            })  # fmt: skip
    results.write_text(json.dumps(content, indent=1) + "\n")
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train a source model")
    one.add_argument("source", choices=SOURCES)
    one.add_argument("--weights", type=Path, required=True, help="ImageNet weights of MobileNetV2")
    other = commands.add_parser("adapt", help="adapt the model to a target")
    other.add_argument("target", choices=TARGETS)
    for each in (one, other):
        each.add_argument("--root", type=Path, required=True, help="folder of the data set")
    for each in (one, other, commands.add_parser("summarize", help="write the rows")):
        each.add_argument("--out", type=Path, required=True, help="folder of the runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "train":
        train(given.source, given.root, given.weights, given.out)
    elif given.command == "adapt":
        adapt_to(given.target, given.root, given.out)
    else:
        summarize(given.out)


if __name__ == "__main__":
    main()
