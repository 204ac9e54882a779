"""Trains systems on a small copy of MARS with several seeds, and writes the rows of docs/accuracy.md.

    python benchmarks/accuracy.py train ROW SEED --root MARS --weights FILE --out DIR
    python benchmarks/accuracy.py summarize --out DIR

`train` uses one thread, so two rows can be trained at a time on two cores. It can be interrupted: the same
command resumes. Each trained model is evaluated twice: with the frames as they are, and with a third of the
frames of query and gallery corrupted (`data.Corruption`). `summarize` compares all finished rows with each
baseline (`metrics.compare`) and writes benchmarks/results/accuracy/mars_copy.json; `benchmarks/tables.py`
writes the tables.

MARS: a folder in the layout of MARS. FILE: weights of an ImageNet MobileNetV2.
"""

import argparse
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from harness import machine

from vreid_ext import engine
from vreid_ext.engine.run_comparison import compare_runs

RESULTS = Path(__file__).parent / "results" / "accuracy" / "mars_copy.json"
FIGURES = ("mAP", "rank1", "rank5", "rank10", "rank20")

# What two CPU cores allow instead of the settings of the papers, the same for all rows. The first blocks of
# the network keep their ImageNet weights.
COMMON = [
    "model.backbone=mobilenet_v2",
    "model.neck=bn",
    "input.height=128",
    "input.width=64",
    "input.sampling=restricted",
    "batch.p=8",
    "batch.k=2",
    "optim.groups=[{parts: [classifier], lr_factor: 10}]",
    "schedule.name=cosine",
    "schedule.milestones=[]",
    "schedule.warmup_epochs=1",
    "stages=[{epochs: 100, freeze: [backbone.features.0, backbone.features.1, backbone.features.2, "
    "backbone.features.3]}]",
    "train.epochs=24",
    "train.channels_last=true",
    "train.checkpoint_every=3",
    "train.workers=0",
    "eval.sampling=evenly",
    "eval.metric=cosine",
]


@dataclass(frozen=True)
class Row:
    """recipe, overrides: the recipe, and the settings in addition to `COMMON`.

    trained: the row whose models are evaluated with the settings `overrides`; None: this row is trained.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    trained: str | None = None


ROWS = {
    "frame": Row("sta_mars_triplet"),
    "average": Row("sta_mars_average"),
    "attention": Row("sta_mars_attention"),
    "fusion": Row("sta_mars_fusion"),
    "sta": Row("sta_mars", ("loss.inter_frame=100",)),
    "consensus": Row("consensus_mars", ("model.pooling=consensus",), trained="frame"),
}
BASELINES = ("frame", "average")
CONDITIONS = {"clean": [], "corrupted": ["eval.corrupt=0.333"]}


def train(name: str, seed: int, root: Path, weights: Path, out: Path) -> None:
    """Train a row with one seed, and evaluate all rows that use its models."""
    torch.set_num_threads(1)
    row = ROWS[name]
    settings = [f"seed={seed}", f"dataset.root={root}", f"model.weights={weights}"]
    recipe = engine.load_recipe(row.recipe, [*COMMON, *row.overrides, *settings])
    run = out / f"{name}-{seed}"
    before, start = _steps(run), time.process_time()
    engine.train(recipe, run)
    steps = _steps(run)
    if steps > before:
        # A resumed run does not know how long its first part took, so the time is extrapolated.
        hours = (time.process_time() - start) * steps / (steps - before) / 3600
        (run / "cost.json").write_text(json.dumps({"steps": steps, "cpu_hours": hours}))
    for other in _of_models(name):
        for condition, changes in CONDITIONS.items():
            file = _figures_of(run, other, condition)
            if not file.is_file():
                engine.evaluate_checkpoint(run, [*ROWS[other].overrides, *changes], out=file)


def summarize(out: Path, results: Path = RESULTS) -> dict[str, Any]:
    """Compare all finished rows with the baselines and write the figures."""
    runs = {name: _finished(out, name) for name in ROWS}
    content: dict[str, Any] = {"machine": machine(), "common": COMMON, "conditions": CONDITIONS, "rows": []}
    for name in [name for name in ROWS if runs[name]]:
        cost = [json.loads((run / "cost.json").read_text()) for run in runs[name]]
        content["rows"].append({
            "row": name,
            **asdict(ROWS[name]),
            "seeds": [int(run.name.rpartition("-")[2]) for run in runs[name]],
            "steps": cost[0]["steps"],
            "cpu_hours": sum(each["cpu_hours"] for each in cost),
            **{condition: _compared(name, condition, runs) for condition in CONDITIONS},
        })  # fmt: skip
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(content, indent=1) + "\n")
    return content


def _compared(name: str, condition: str, runs: dict[str, list[Path]]) -> dict[str, Any]:
    """Figures of a row with intervals, and the difference to each baseline."""
    files = {each: [_figures_of(run, each, condition) for run in runs[each]] for each in runs if runs[each]}
    others = [each for each in BASELINES if each in files and each != name]
    found: dict[str, Any] = {"minus": {}}
    for other in others or [each for each in files if each != name][:1]:
        paired = ROWS[name].trained == other
        compared = compare_runs({other: files[other], name: files[name]}, paired=paired)
        of_row = next(each for each in compared["rows"] if each["label"] == name)
        found |= {each: of_row[each] for each in (*FIGURES, "queries", "persons")}
        if other in BASELINES:
            found["minus"][other] = {figure: compared["differences"][0][figure] for figure in FIGURES}
    return found


def _figures_of(run: Path, name: str, condition: str) -> Path:
    """The figures of a row, computed with the model of `run`."""
    by_training = condition == "clean" and ROWS[name].trained is None
    return run / ("result.json" if by_training else f"{name}-{condition}.json")


def _of_models(name: str) -> list[str]:
    """All rows that use the models of a row."""
    return [each for each in ROWS if name in (each, ROWS[each].trained)]


def _finished(out: Path, name: str) -> list[Path]:
    """The runs of a row that have been evaluated for all rows that use their models."""
    trained = ROWS[name].trained or name
    files = [(each, condition) for each in _of_models(trained) for condition in CONDITIONS]
    runs = sorted(out.glob(f"{trained}-[0-9]*"))
    return [run for run in runs if all(_figures_of(run, *file).is_file() for file in files)]


def _steps(run: Path) -> int:
    """Number of steps in the log of a run."""
    log = run / "log.jsonl"
    steps = re.findall(r'"kind": "step", "step": (\d+)', log.read_text()) if log.is_file() else []
    return int(steps[-1]) if steps else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train and evaluate one row with one seed")
    one.add_argument("row", choices=[name for name, row in ROWS.items() if row.trained is None])
    one.add_argument("seed", type=int)
    one.add_argument("--root", type=Path, required=True, help="the copy of MARS")
    one.add_argument("--weights", type=Path, required=True, help="ImageNet weights of MobileNetV2")
    every = commands.add_parser("summarize", help="write the rows of all finished runs")
    for each in (one, every):
        each.add_argument("--out", type=Path, required=True, help="folder of the runs")
    given = parser.parse_args()
    if given.command == "train":
        train(given.row, given.seed, given.root, given.weights, given.out)
    else:
        summarize(given.out)


if __name__ == "__main__":
    main()
