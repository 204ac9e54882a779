"""Trains systems on a small copy of MARS with several seeds, and writes the rows of docs/accuracy.md.

    python benchmarks/accuracy.py pretrain --root CUHK03 --weights FILE --out DIR
    python benchmarks/accuracy.py train ROW SEED --root MARS --weights FILE --out DIR [--attributes TABLE]
    python benchmarks/accuracy.py collect --out DIR

`pretrain` trains the network that the rows with `pretrained` start from; the other rows do not need it.

`train` uses one thread, so two rows can be trained at a time on two cores. It can be interrupted: the same
command resumes. Each trained model is evaluated twice: with the frames as they are, and with a third of the
frames of query and gallery corrupted (`data.Corruption`).

`collect` adds the figures of each query in all finished runs of DIR to benchmarks/results/accuracy/mars_copy,
one file for each row and seed, and compares all rows of that folder with the baselines (`metrics.compare`).
So rows can be added later, without the runs of the other rows. The comparison is written to
benchmarks/results/accuracy/mars_copy.json; `benchmarks/tables.py` writes the tables.

MARS, CUHK03: folders in the layouts of these data sets. FILE: weights of an ImageNet MobileNetV2. TABLE:
MARS's attributes (`data.read_attributes`), for the rows of ASTA. benchmarks/accuracy_rows.py has the rows.
"""

import argparse
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accuracy_rows import COMMON, GROUPS, PRETRAINING, ROWS
from harness import machine

from vreid_ext import engine, metrics
from vreid_ext._files import write_json
from vreid_ext.engine.checkpoint import resolve_checkpoint
from vreid_ext.engine.figures import read_queries

RESULTS = Path(__file__).parent / "results" / "accuracy" / "mars_copy"
FIGURES = ("mAP", "rank1", "rank5", "rank10", "rank20")

# Every row is compared with these rows and with the baseline of its system.
BASELINES = ("frame", "average")
_PRETRAINED = "pretrained"  # the run of `pretrain`
CONDITIONS = {"clean": [], "corrupted": ["eval.corrupt=0.333"]}


def pretrain(root: Path, weights: Path, out: Path) -> None:
    """Train the network of the rows that are pre-trained, with seed 0."""
    torch.set_num_threads(1)
    settings = [f"dataset.root={root}", f"model.weights={weights}", "seed=0"]
    recipe = engine.load_recipe(PRETRAINING.source, [*COMMON, *PRETRAINING.overrides, *settings])
    engine.train(recipe, out / _PRETRAINED)


def train(name: str, seed: int, root: Path, weights: Path, out: Path, attributes: Path | None = None) -> None:
    """Train a row with one seed, and evaluate all rows that use its models."""
    torch.set_num_threads(1)
    row = ROWS[name]
    if row.attributes and attributes is None:
        raise ValueError(f"attributes: expected a table of attributes for {name}, got None")
    start = resolve_checkpoint(out / _PRETRAINED) / "weights.safetensors" if row.pretrained else weights
    settings = [f"seed={seed}", f"dataset.root={root}", f"model.weights={start}"]
    if row.attributes:
        settings.append(f"dataset.options.attributes={attributes}")
    recipe = engine.load_recipe(row.source, [*COMMON, *row.overrides, *settings])
    run = out / f"{name}-{seed}"
    before, begun = _steps(run), time.process_time()
    engine.train(recipe, run)
    steps = _steps(run)
    if steps > before:
        # A resumed run does not know how long its first part took, so the time is extrapolated.
        hours = (time.process_time() - begun) * steps / (steps - before) / 3600
        write_json(run / "cost.json", {"steps": steps, "cpu_hours": hours, "machine": machine()})
    for other in _of_models(name):
        for condition, changes in CONDITIONS.items():
            file = _figures_of(run, other, condition)
            if not file.is_file():
                engine.evaluate_checkpoint(run, [*ROWS[other].overrides, *changes], out=file)


def collect(out: Path, results: Path = RESULTS) -> dict[str, Any]:
    """Add all finished runs to the folder `results`, and write the comparison of its rows next to it."""
    results.mkdir(parents=True, exist_ok=True)
    for name, row in ROWS.items():
        for run in sorted(out.glob(f"{row.trained or name}-[0-9]*")):
            if all(_figures_of(run, name, condition).is_file() for condition in CONDITIONS):
                text = json.dumps(_of_run(run, name))  # in one line: thousands of numbers
                (results / f"{name}-{_seed(run)}.json").write_text(f"{text}\n")
    return summarize(results)


def summarize(results: Path = RESULTS) -> dict[str, Any]:
    """Compare all rows of the folder `results` with the baselines and write the figures next to it.

    Rows that are in the written file but not in the folder are kept: they are from a time when the figures of
    each query were not.

    Raises:
        ValueError: results of different queries.
    """
    file = results.with_suffix(".json")
    kept = {row["row"]: row for row in json.loads(file.read_text())["rows"]} if file.is_file() else {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in ROWS:
        runs = [json.loads(file.read_text()) for file in sorted(results.glob(f"{name}-[0-9]*.json"))]
        if runs:
            rows[name] = runs
    first = next(iter(rows.values()))[0]
    for run in (each for runs in rows.values() for each in runs):
        if run["queries"] != first["queries"]:
            raise ValueError(
                f"{run['row']}-{run['seed']}: expected the queries of {first['row']}, got others"
            )
    content: dict[str, Any] = {"common": COMMON, "conditions": CONDITIONS, "rows": []}
    for name in ROWS:
        if name not in rows:
            content["rows"] += [kept[name] | _described(name)] if name in kept else []
            continue
        runs = rows[name]
        content["rows"].append({
            **_described(name),
            "seeds": [run["seed"] for run in runs],
            "steps": runs[0]["steps"],
            "cpu_hours": sum(run["cpu_hours"] for run in runs),
            "machines": [run["machine"] for run in runs],
            **{condition: _compared(name, condition, rows) for condition in CONDITIONS},
        })  # fmt: skip
    write_json(file, content)
    return content


def _of_run(run: Path, name: str) -> dict[str, Any]:
    """The content of a file of results: the figures of each query of a row, with one seed.

    Persons are numbered in the order of their first query, and the names of the queries are only kept as a
    hash: neither belongs to this repository.
    """
    queries = {condition: read_queries(_figures_of(run, name, condition))[0] for condition in CONDITIONS}
    first = queries["clean"]
    numbers = {pid: number for number, pid in enumerate(dict.fromkeys(first["pid"]))}
    return {
        "row": name,
        "seed": _seed(run),
        **json.loads((run / "cost.json").read_text()),
        "queries": hashlib.sha256(json.dumps([first["name"], first["pid"]]).encode()).hexdigest(),
        "person": [numbers[pid] for pid in first["pid"]],
        **{
            condition: {"ap": [_rounded(ap) for ap in each["ap"]], "first_hit": each["first_hit"]}
            for condition, each in queries.items()
        },
    }


def _described(name: str) -> dict[str, Any]:
    group = next(group for group, members in GROUPS.items() if name in members)
    return {"row": name, "group": group, **asdict(ROWS[name])}


def _compared(name: str, condition: str, rows: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Figures of a row with intervals, and the difference to each baseline."""

    def compared(other: str) -> metrics.Compared:
        models = [ROWS[row].trained or row for row in (other, name)]
        pair = [{run["seed"]: _of_queries(run[condition]) for run in rows[row]} for row in (other, name)]
        paired = models[0] == models[1]
        if paired:  # by the models that both rows have evaluated
            seeds = [seed for seed in pair[0] if seed in pair[1]]
            pair = [{seed: side[seed] for seed in seeds} for side in pair]
        sides = [list(side.values()) for side in pair]
        return metrics.compare(*sides, rows[name][0]["person"], paired=paired)

    alone = compared(name)
    return {
        "minus": {
            other: {figure: _interval(difference[figure]) for figure in FIGURES}
            for other in dict.fromkeys((*BASELINES, ROWS[name].baseline))
            if other in rows and other != name
            for difference in [compared(other).difference]
        },
        **{figure: alone.b[figure]._asdict() for figure in FIGURES},
        "queries": alone.queries,
        "persons": alone.persons,
    }


def _of_queries(figures: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Figures of each query for `metrics.compare`: NaN for a query without a match."""
    return {**figures, "ap": [torch.nan if ap is None else ap for ap in figures["ap"]]}


def _interval(figure: metrics.Interval) -> dict[str, Any]:
    return {**figure._asdict(), "decided": figure.decided}


def _rounded(ap: float) -> float | None:
    return None if ap != ap else round(ap, 5)


def _figures_of(run: Path, name: str, condition: str) -> Path:
    """The figures of a row, computed with the model of `run`."""
    by_training = condition == "clean" and ROWS[name].trained is None
    return run / ("result.json" if by_training else f"{name}-{condition}.json")


def _of_models(name: str) -> list[str]:
    """All rows that use the models of a row."""
    return [each for each in ROWS if name in (each, ROWS[each].trained)]


def _seed(run: Path) -> int:
    return int(run.name.rpartition("-")[2])


def _steps(run: Path) -> int:
    """Number of steps in the log of a run."""
    log = run / "log.jsonl"
    steps = re.findall(r'"kind": "step", "step": (\d+)', log.read_text()) if log.is_file() else []
    return int(steps[-1]) if steps else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("pretrain", help="train the network that some rows start from")
    start.add_argument("--root", type=Path, required=True, help="CUHK03")
    one = commands.add_parser("train", help="train and evaluate one row with one seed")
    one.add_argument("row", choices=[name for name, row in ROWS.items() if row.trained is None])
    one.add_argument("seed", type=int)
    one.add_argument("--root", type=Path, required=True, help="the copy of MARS")
    one.add_argument("--attributes", type=Path, help="mars_attributes.csv, for the rows of ASTA")
    every = commands.add_parser("collect", help="add all finished runs to the results and compare the rows")
    for each in (start, one):
        each.add_argument("--weights", type=Path, required=True, help="ImageNet weights of MobileNetV2")
    for each in (start, one, every):
        each.add_argument("--out", type=Path, required=True, help="folder of the runs")
    given = parser.parse_args()
    if given.command == "pretrain":
        pretrain(given.root, given.weights, given.out)
    elif given.command == "train":
        train(given.row, given.seed, given.root, given.weights, given.out, given.attributes)
    else:
        collect(given.out)


if __name__ == "__main__":
    main()
